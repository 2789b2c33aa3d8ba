"""The same run under several seeds: what a number is worth that was measured once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf

from tfdlrm.config import ExperimentConfig
from tfdlrm.data.opening import open_dataset
from tfdlrm.distribute.strategy import strategy_of
from tfdlrm.training.run import train


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One run.

    Args:
        seed: of initial values, order of rows and dropout.
        best_epoch: the epoch that was chosen, counted from 1.
        validation: value of the monitored metric in it.
        test: exact metrics of the test part.
    """

    seed: int
    best_epoch: int
    validation: float
    test: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class SeedResults:
    """Runs that differ in the seed alone.

    Args:
        monitor: the metric that chose the epoch.
        runs: in the order of the seeds given; fewer than asked for if it was interrupted.
        interrupted_by: the signal that ended it early, or None.
    """

    monitor: str
    runs: tuple[SeedResult, ...]
    interrupted_by: str | None = None

    def mean(self, metric: str) -> float:
        """Mean over the runs of a metric of the test part."""
        return statistics.fmean(run.test[metric] for run in self.runs)

    def standard_deviation(self, metric: str) -> float:
        """Of one run: the sample standard deviation over the runs; 0 for a single run."""
        values = [run.test[metric] for run in self.runs]
        return statistics.stdev(values) if len(values) > 1 else 0.0


def with_seed(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    """The config with one seed for initial values, order of rows and dropout. The data keep theirs."""
    return replace(config, model=replace(config.model, seed=seed), train=replace(config.train, seed=seed))


def train_seeds(
    config: ExperimentConfig,
    model_dir: str | Path,
    seeds: Sequence[int],
    *,
    resume: bool = False,
    strategy: tf.distribute.Strategy | None = None,
    verbose: int = 1,
) -> SeedResults:
    """Trains once a seed, each in its own folder `<model_dir>/seed-<seed>`, and tests the epoch that validation chose.

    Args:
        config: of every run.
        model_dir: holds the runs.
        seeds: distinct, each 0 or more.
        resume: go on with the runs that are there, and start those that are not.
        strategy: as for `train`.
        verbose: 0 shows nothing of the single runs.

    Raises:
        ValueError: no seed, one given twice, or the data have no test part.
        FileExistsError: one of the runs is there already and `resume` is False.

    Example:
        >>> results = train_seeds(preset("movielens-100k"), "runs/movielens", [0, 1, 2, 3, 4])
        >>> results.mean("auc"), results.mean("log_loss")
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds={list(seeds)}: give at least one, and each once.")
    folders = {seed: Path(model_dir) / f"seed-{seed}" for seed in seeds}
    present = [folder for folder in folders.values() if (folder / "checkpoints").is_dir()]
    if present and not resume:
        # before hours are spent on the seeds that come first
        raise FileExistsError(
            f"{present[0]}: there is a run here. Go on with it by --resume, or give another --model-dir."
        )
    strategy = strategy or strategy_of(config.train)
    data = open_dataset(config.data, bad_rows=config.train.bad_rows, quarantine_dir=model_dir)
    if data.test is None:
        raise ValueError(
            f"the data have no test part to compare seeds on; there are: {', '.join(data.parts)}. Give data.test_path, "
            "or a data.split that makes one."
        )
    runs: list[SeedResult] = []
    for seed, folder in folders.items():
        if verbose:
            print(f"seed {seed}", flush=True)
        config_of_seed = with_seed(config, seed)
        result = train(config_of_seed, folder, resume=folder in present, data=data, strategy=strategy, verbose=verbose)
        if result.interrupted_by is not None:
            return SeedResults(monitor=config.train.monitor, runs=tuple(runs), interrupted_by=result.interrupted_by)
        assert result.best is not None
        assert result.test is not None
        best = result.best
        runs.append(SeedResult(seed=seed, best_epoch=best["epoch"] + 1, validation=best["value"], test=result.test))
        del result
        keras.backend.clear_session()  # or the graphs of all seeds would stay until the end
    return SeedResults(monitor=config.train.monitor, runs=tuple(runs))
