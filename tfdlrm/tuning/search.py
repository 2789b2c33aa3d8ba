"""`tune`: trials of configs, pruned by validation; the best few are settled by the mean of several seeds."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.checks import check_integer, quoted
from tfdlrm.config import ExperimentConfig
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.splits import Splits
from tfdlrm.files import atomic_path, read_text, try_lock
from tfdlrm.stop_signals import StopSignals
from tfdlrm.training.build import resolve_config
from tfdlrm.training.history import read_history
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import train
from tfdlrm.training.seeds import SeedResults, train_seeds
from tfdlrm.training.step_counter import TrainingDivergedError
from tfdlrm.tuning.optuna_extra import journal, optuna
from tfdlrm.tuning.space import Space, value_text, with_values
from tfdlrm.yaml_text import dump_yaml, parse_yaml

SEARCH_FILE, STUDY_FILE, BOARD_FILE, BEST_FILE = "search.yaml", "study.log", "leaderboard.csv", "best.yaml"
FINALISTS = 3
_FOLDER, _ENDED = "folder", "ended"  # attributes of a trial
_GIVEN = "given"
_STARTUP_TRIALS = 5  # before any is pruned


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One config that was tried.

    Args:
        number: from 0.
        values: of the space's keys.
        state: `complete`, `pruned`, `diverged`, or `refused` where the config does not take the values together.
        value: the monitored metric of its best epoch; NaN where there was none.
        epochs: that it was trained for.
    """

    number: int
    values: dict[str, Any]
    state: str
    value: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A config that several seeds were spent on.

    Args:
        name: `given`, or `trial 7`.
        values: of the space's keys; empty for the config that was given.
        results: of the seeds.
    """

    name: str
    values: dict[str, Any]
    results: SeedResults

    @property
    def validation(self) -> float:
        """Mean of the monitored metric, over the seeds."""
        return statistics.fmean(run.validation for run in self.results.runs)


@dataclass(frozen=True)
class TuneResult:
    """What `tune` found.

    Args:
        monitor: the metric that decides, of the validation part.
        mode: `max` or `min`: which end of it is good.
        trials: all, best first.
        finalists: the given config and the best trials, best first by the mean over seeds.
        best_file: the best one's config, which `tfdlrm train` takes; None where the search was interrupted.
        interrupted_by: the signal that ended it early, or None.
        diverged: configs that were among the best, and diverged with one of the seeds.
    """

    monitor: str
    mode: str
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...] = ()
    best_file: Path | None = None
    interrupted_by: str | None = None
    diverged: tuple[str, ...] = ()


def tune(
    config: ExperimentConfig | None,
    model_dir: str | Path,
    *,
    space: Space | None = None,
    trials: int = 20,
    seeds: Sequence[int] = (0, 1, 2),
    resume: bool = False,
    verbose: int = 1,
) -> TuneResult:
    """Searches a space of configs by the validation part, and says what the best is worth on the test part.

    Values are drawn by TPE (Bergstra et al. 2011); a trial whose monitored metric is below the median of the earlier
    ones at the same epoch is given up. The three best configs and the one given are then trained once a seed, and the
    best mean of the monitored metric wins: the best of many single runs is the luckiest one. The test part is looked at
    only then. A trial whose values the config refuses together, or that diverges, counts as one and is no finalist; a
    config that diverges with one of the seeds is left out.

    Args:
        config: to begin with; None with `resume`, which goes on with its own.
        model_dir: holds the search and the runs of the seeds.
        space: what is searched; None for `Space.default`.
        trials: in all, those of an interrupted search included.
        seeds: distinct.
        resume: go on with the search in that folder, and with the run that was interrupted.
        verbose: 0 shows nothing.

    Raises:
        FileExistsError: there is a search, or something else, and `resume` is False.
        FileNotFoundError: there is none to go on with.
        ValueError: a key or value of the space does not fit the config; no validation or test part.
        ImportError: optuna is not installed.
        TrainingDivergedError: every one of the best configs, and the one given, diverged.

    Example:
        >>> result = tune(preset("movielens-100k"), "runs/search", trials=20)
        >>> result.finalists[0].results.mean("auc")
    """
    folder = Path(model_dir)
    check_integer("tune", "trials", trials, minimum=1)
    # train has handlers of its own; these are for the moments between two runs
    with _locked(folder), StopSignals() as signals:
        config, space = _begun(folder) if resume else _begin(folder, config, space)
        data = open_dataset(config.data, bad_rows=config.train.bad_rows, quarantine_dir=folder)
        _check_parts(data)
        resolve_config(config, data.spec)  # or every trial would be refused for what the config has
        search = _Search(folder, config, space, data, verbose)
        interrupted = search.run(trials, signals)
        if interrupted is not None:
            return search.result(interrupted)
        finalists, diverged = [], {}
        for name, values in (_GIVEN, {}), *((f"trial {t.number}", t.values) for t in search.best(FINALISTS)):
            try:
                results = search.settle(name, values, seeds)
            except TrainingDivergedError as error:
                diverged[name] = error
                continue
            if results.interrupted_by or signals.received:
                return search.result(results.interrupted_by or signals.received)
            finalists.append(Finalist(name=name, values=values, results=results))
        if not finalists:
            raise diverged[_GIVEN]
        sign = 1.0 if config.train.monitor_mode == "max" else -1.0
        finalists.sort(key=lambda each: -sign * each.validation)
        best = folder / BEST_FILE
        with atomic_path(best) as partial:
            partial.write_text(with_values(config, finalists[0].values).to_yaml(), encoding="utf-8")
        return replace(search.result(None), finalists=tuple(finalists), best_file=best, diverged=tuple(diverged))


class _Search:
    """The study and its trials."""

    def __init__(self, folder: Path, config: ExperimentConfig, space: Space, data: Splits, verbose: int) -> None:
        self._folder, self._config, self._space, self._data, self._verbose = folder, config, space, data, verbose
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # left by a process that was killed while it wrote; this one has the folder's own lock
        (folder / f"{STUDY_FILE}.lock").unlink(missing_ok=True)
        backend = journal.JournalFileBackend(str(folder / STUDY_FILE))
        self._study = optuna.create_study(
            study_name="search",
            storage=optuna.storages.JournalStorage(backend),
            direction="maximize" if config.train.monitor_mode == "max" else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=1),
            load_if_exists=True,
        )
        # another stream of draws each time the search goes on
        self._study.sampler = optuna.samplers.TPESampler(seed=config.train.seed + len(self._study.trials))

    def run(self, count: int, signals: StopSignals) -> str | None:
        """Trials until there are so many; the signal that ended it early, or None."""
        for left in self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            # its process has died: the same values again, and the same run goes on
            self._study.tell(left.number, state=optuna.trial.TrialState.FAIL)
            if left.params and _FOLDER in left.user_attrs:
                self._study.enqueue_trial(left.params, user_attrs={_FOLDER: left.user_attrs[_FOLDER]})
        while len(self.trials()) < count:
            interrupted = self._run_one()
            self._write_board()
            if interrupted or signals.received:
                return interrupted or signals.received
        return None

    def _run_one(self) -> str | None:
        trial = self._study.ask()
        folder = self._folder / "trials" / trial.user_attrs.get(_FOLDER, f"{trial.number:04d}")
        trial.set_user_attr(_FOLDER, folder.name)
        values = self._space.draw(trial)
        try:
            config = with_values(self._config, values)
            resolve_config(config, self._data.spec)
        except ValueError as error:
            # each value was tried by itself before the search; some do not go together
            self._fail(trial, "refused", str(error))
        else:
            if (interrupted := self._train(trial, config, folder)) is not None:
                return interrupted
            _log_values(ModelDir(folder).logs, values)
            # its history and config stay; the best ones are trained anew, and a hundred models fill a disk
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            keras.backend.clear_session()
        if self._verbose:
            last = max(self.trials(), key=lambda each: each.number)
            print(_line(last, self._config.train.monitor), flush=True)
        return None

    def _train(self, trial: Any, config: ExperimentConfig, folder: Path) -> str | None:
        """One trial's run, told to the study; the signal that ended it early, or None."""
        report = _Report(trial, config.train.monitor)
        resume = ModelDir(folder).has_begun()
        try:
            result = train(config, folder, resume=resume, data=self._data, verbose=0, callbacks=[report])
        except TrainingDivergedError as error:
            self._fail(trial, "diverged", str(error))
            return None
        if result.interrupted_by is not None:
            return result.interrupted_by
        if report.pruned:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif result.best is None:
            raise ValueError(
                f"no epoch has a {quoted(config.train.monitor)}: the validation part has labels of one kind. Give "
                "other rows, or monitor val_log_loss."
            )
        else:
            self._study.tell(trial, result.best["value"])
        return None

    def _fail(self, trial: Any, ended: str, reason: str) -> None:
        trial.set_user_attr(_ENDED, ended)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if self._verbose:
            print(f"trial {trial.number}: {ended}: {reason}", flush=True)

    def trials(self) -> list[Trial]:
        """Those that have ended, in the order of the study."""
        found, states = [], optuna.trial.TrialState
        for each in self._study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED, states.FAIL]):
            if each.state == states.FAIL and _ENDED not in each.user_attrs:
                continue  # its process died; it was begun again under another number
            state = each.user_attrs.get(_ENDED, each.state.name.lower())
            value = each.value if each.value is not None else self._best_so_far(each)
            epochs = len(read_history(self._folder / "trials" / each.user_attrs[_FOLDER] / "history.csv"))
            values = {name: _plain(name, value, each) for name, value in each.params.items()}
            found.append(Trial(number=each.number, values=values, state=state, value=value, epochs=epochs))
        return found

    def _best_so_far(self, trial: Any) -> float:
        values = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        best = max if self._config.train.monitor_mode == "max" else min
        return best(values, default=math.nan)

    def ranked(self) -> list[Trial]:
        """Best first; those that did not come to their end are behind."""
        sign = 1.0 if self._config.train.monitor_mode == "max" else -1.0
        return sorted(
            self.trials(),
            key=lambda each: (each.state != "complete", -sign * each.value if not math.isnan(each.value) else math.inf),
        )

    def best(self, count: int) -> list[Trial]:
        """The best ones that were trained to their end."""
        return [each for each in self.ranked() if each.state == "complete"][:count]

    def settle(self, name: str, values: dict[str, Any], seeds: Sequence[int]) -> SeedResults:
        """Trains a config once a seed; goes on with what is there."""
        if self._verbose:
            print(f"{name}: seeds {', '.join(map(str, seeds))}", flush=True)
        config, folder = with_values(self._config, values), self._folder / "finalists" / name.replace(" ", "-")
        return train_seeds(config, folder, seeds, resume=True, verbose=0)

    def result(self, interrupted: str | None) -> TuneResult:
        """What is known before any finalist is settled."""
        train, trials = self._config.train, tuple(self.ranked())
        return TuneResult(train.monitor, train.monitor_mode, trials, interrupted_by=interrupted)

    def _write_board(self) -> None:
        keys = [each.key for each in self._space.dimensions]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "state", self._config.train.monitor, "epochs", *keys])
        for each in self.ranked():
            value = "" if math.isnan(each.value) else f"{each.value:.6f}"
            writer.writerow([each.number, each.state, value, each.epochs, *(json.dumps(each.values[k]) for k in keys)])
        with atomic_path(self._folder / BOARD_FILE) as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")


class _Report(keras.callbacks.Callback):
    """Tells a trial how its epochs go, and ends a run that is given up."""

    def __init__(self, trial: Any, monitor: str) -> None:
        super().__init__()
        self._trial, self._monitor = trial, monitor
        self.pruned = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {}).get(self._monitor)
        if value is None or math.isnan(value):
            return
        self._trial.report(float(value), epoch)
        if self._trial.should_prune():
            self.pruned = True
            self.model.stop_training = True


def _plain(name: str, value: Any, trial: Any) -> Any:
    """A value as it is in a config: choices are kept as JSON."""
    is_choice = isinstance(trial.distributions[name], optuna.distributions.CategoricalDistribution)
    return json.loads(value) if is_choice else value


def _log_values(logs: Path, values: dict[str, Any]) -> None:
    """For TensorBoard's page of hyperparameters, where TensorBoard is installed."""
    try:
        from tensorboard.plugins.hparams import api
    except ImportError:
        return
    plain = {key: value if isinstance(value, (int, float, str)) else json.dumps(value) for key, value in values.items()}
    writer = tf.summary.create_file_writer(str(logs))
    with writer.as_default():
        api.hparams(plain)
    writer.close()


def _line(trial: Trial, monitor: str) -> str:
    values = ", ".join(f"{key.rpartition('.')[2]}={value_text(value)}" for key, value in trial.values.items())
    return f"trial {trial.number}: {trial.state}, {monitor} {trial.value:.6f} in {trial.epochs} epochs ({values})"


def _check_parts(data: Splits) -> None:
    for part in ("validation", "test"):
        if part not in data.parts:
            raise ValueError(
                f"tune: the data have no {part} part; there are: {', '.join(data.parts)}. Give data.{part}_path, or a "
                "data.split that makes one."
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = try_lock(folder / ".tune-lock")
    if lock is None:
        raise RuntimeError(f"{folder}: another process is searching here. Wait for it, or give another --model-dir.")
    with lock:
        yield


def _begin(folder: Path, config: ExperimentConfig | None, space: Space | None) -> tuple[ExperimentConfig, Space]:
    if config is None:
        raise ValueError("tune: the config is missing. Give one; a search goes on by resume alone.")
    others = sorted(entry.name for entry in folder.iterdir() if entry.name != ".tune-lock")
    if others:
        raise FileExistsError(
            f"{folder}: holds {', '.join(others[:3])}. Go on with a search by --resume, or give another --model-dir."
        )
    space = space or Space.default(config)
    space.check(config)
    with atomic_path(folder / SEARCH_FILE) as partial:
        partial.write_text(dump_yaml({"config": config.to_dict(), "space": space.to_dict()}), encoding="utf-8")
    return config, space


def _begun(folder: Path) -> tuple[ExperimentConfig, Space]:
    file = folder / SEARCH_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no search there. Give the --model-dir of one, or leave --resume out.")
    plain = parse_yaml(read_text(file), str(file))
    if not isinstance(plain, dict) or set(plain) != {"config", "space"}:
        raise ValueError(f"{file}: not what a search writes. Restore the file.")
    return ExperimentConfig.from_dict(plain["config"]), Space.from_dict(plain["space"], str(file))
