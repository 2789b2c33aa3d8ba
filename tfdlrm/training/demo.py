"""The demo's training: generated rows whose best possible scores are known, the preset `quickstart`, held-out rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.config import ExperimentConfig, preset
from tfdlrm.data.opening import open_dataset
from tfdlrm.data.splits import Splits
from tfdlrm.data.synthetic import best_possible
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.models.dlrm import DLRM
from tfdlrm.training.run import train

PRESET = "quickstart"
MARKER = ".tfdlrm-demo"
MODEL, EXPORT = "model", "export"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo trained and measured, on rows it did not train on.

    Args:
        model: the trained model.
        data: its rows.
        metrics: exact metrics of the model.
        best: the same of the teacher, whose probabilities the labels were drawn from: no model can expect to do better.
        expected_auc, expected_log_loss: the teacher's over all labels that could have been drawn.
    """

    model: DLRM
    data: Splits
    metrics: Mapping[str, float]
    best: Mapping[str, float]
    expected_auc: float
    expected_log_loss: float

    @property
    def auc_gap(self) -> float:
        """How far the model's AUC is below the best possible."""
        return self.best["auc"] - self.metrics["auc"]


def run_demo(folder: Path, config: ExperimentConfig | None = None, *, verbose: int = 1) -> DemoResult | None:
    """Trains on generated rows and compares the model with the teacher on the test part.

    Args:
        folder: of the demo, from `demo_folder`; the model goes into its sub-folder `model`.
        config: of synthetic data with a test part; default the preset `quickstart`.
        verbose: 0 shows no progress.

    Returns:
        The result; None if a signal ended training early.

    Raises:
        ValueError: the config's data are not synthetic, or have no test part.

    Example:
        >>> with demo_folder("build/demo") as folder:
        ...     print(run_demo(folder).auc_gap)
    """
    config = config or preset(PRESET)
    data = open_dataset(config.data)
    teacher = best_possible(data.test) if data.test is not None else None
    if teacher is None:
        raise ValueError(
            f"DataConfig: format={quoted(config.data.format)}, split={quoted(config.data.split)}: "
            "the demo needs synthetic "
            "rows and a test part. Set format: synthetic and split: time."
        )
    result = train(config, folder / MODEL, data=data, verbose=verbose)
    if result.test is None:
        return None
    # probabilities and not logits: the teacher's float32 ones may be 0 or 1
    best = evaluate_arrays(teacher.labels, np.asarray(teacher.probability), from_logits=False)
    return DemoResult(
        model=result.model,
        data=data,
        metrics=result.test,
        best=best,
        expected_auc=teacher.expected_auc,
        expected_log_loss=teacher.expected_log_loss,
    )


@contextmanager
def demo_folder(path: Path) -> Iterator[Path]:
    """A folder for one demo, without what the demo before it left there.

    Raises:
        FileExistsError: the folder holds files that no demo wrote.
    """
    marker = path / MARKER
    if path.is_dir() and any(path.iterdir()) and not marker.is_file():
        raise FileExistsError(f"{path}: holds files that are not the demo's. Give another --model-dir, or empty it.")
    for part in (MODEL, EXPORT):
        if (path / part).is_dir():
            shutil.rmtree(path / part)
    path.mkdir(parents=True, exist_ok=True)
    marker.write_text("written by `tfdlrm demo`, which empties this folder when it runs again\n", encoding="utf-8")
    yield path
