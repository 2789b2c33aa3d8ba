"""ModelReport: everything that a report of a trained model says, and how it is found out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.checks import check_choice, check_integer, check_optional, quoted
from tfdlrm.config import ExperimentConfig
from tfdlrm.data.inspect.report import ColumnDrift
from tfdlrm.data.opening import BadRowsMode
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.metrics.evaluation import binary_entropy
from tfdlrm.pages.tables import shortened
from tfdlrm.report.comparison import Comparison, compare
from tfdlrm.report.curves import Curves, curves_of
from tfdlrm.report.drift import HeadAndTail, drifted, find_drift
from tfdlrm.report.groups import ValueNames
from tfdlrm.report.importance import IdEffect, Importance, find_importance, importance_rows
from tfdlrm.report.projector import write_projector
from tfdlrm.report.score_bins import Interval, bootstrap_intervals, score_bins
from tfdlrm.report.scored_rows import ScoredRows, score_rows
from tfdlrm.report.slices import Slice, enough_rows, find_slices
from tfdlrm.report.table_usage import TableUsage, table_usage
from tfdlrm.report.verdict import verdict_of
from tfdlrm.training.history import read_history
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.prediction import SCORING_BATCH_SIZE, load_run, run_background
from tfdlrm.training.run_evaluation import labelled_rows

SAMPLE_ROWS = 500_000
_SHOWN_DRIFT = 5


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How training went.

    Args:
        history: a line an epoch, as in `history.csv`.
        epochs: wanted.
        chosen_epoch: that of the checkpoint reported on, from 0; None where it is not the end of one.
        monitor: the metric that chose it; "" where none did.
        has_ended: no epoch is to come: all are there, or early stopping ended the run.
    """

    history: Sequence[Mapping[str, float]]
    epochs: int
    chosen_epoch: int | None
    monitor: str
    has_ended: bool


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """A report of one task of a trained model.

    Args:
        model_dir, checkpoint: what is reported on.
        rows_of: which rows: `test part`, or the file.
        books: rows read = used + set aside, in words.
        label: of the task.
        rows: all, with a sample of whole rows.
        verdict: three sentences.
        metrics: exact, as from `tfdlrm evaluate`.
        intervals: 95 % bootstrap intervals of some of them.
        constant: metrics of the base rate of these rows as every row's score.
        best: metrics of the probabilities that labels were drawn with; None where those are not known.
        curves: for the plots.
        learning: how training went.
        slices: worst first.
        minimum_rows: that each of them has.
        importance: of dense columns and tables, most important first.
        ids: that move the logits most.
        tables: how much of each was trained.
        drift: from the training rows, largest first; None where nothing is known of those.
        tails: head and tail of every categorical column; None likewise.
        comparison: with another model; None where none was asked for.
        notes: what is an estimate, and of how many rows.
    """

    model_dir: str
    checkpoint: str
    rows_of: str
    books: str
    label: str
    rows: ScoredRows
    verdict: Sequence[str]
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    constant: Mapping[str, float]
    best: Mapping[str, float] | None
    curves: Curves
    learning: Learning
    slices: Sequence[Slice]
    minimum_rows: int
    importance: Sequence[Importance]
    ids: Sequence[IdEffect]
    tables: Sequence[TableUsage]
    drift: Sequence[ColumnDrift] | None
    tails: Sequence[HeadAndTail] | None
    comparison: Comparison | None
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: no arrays of rows; what is not a number is None."""
        plain = {
            name: getattr(self, name)
            for name in ("model_dir", "checkpoint", "rows_of", "books", "label", "verdict", "metrics", "intervals")
        }
        plain |= {"constant": self.constant, "best_possible": self.best, "notes": self.notes}
        plain |= {"curves": asdict(self.curves), "learning": asdict(self.learning)}
        plain["slices"] = [{**asdict(each), "rate": each.rate} for each in self.slices]
        for name in ("importance", "ids", "tables", "drift", "tails"):
            found = getattr(self, name)
            plain[name] = None if found is None else [asdict(each) for each in found]
        plain["comparison"] = None if self.comparison is None else asdict(self.comparison)
        return _plain(plain)


def make_report(
    model_dir: str | os.PathLike[str],
    *,
    data: Any = None,
    part: str | None = None,
    compare_with: str | os.PathLike[str] | None = None,
    checkpoint: str = "best",
    label: str | None = None,
    data_format: str | None = None,
    bad_rows: BadRowsMode | None = None,
    batch_size: int = SCORING_BATCH_SIZE,
    sample_rows: int = SAMPLE_ROWS,
    minimum_rows: int | None = None,
    projector: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> ModelReport:
    """A report of a trained model on rows that it has not seen.

    Metrics and curves are of all rows; slices are of a sample, where there are more than `sample_rows`.

    Args:
        model_dir: of the training run.
        data: a file of labelled rows, or a frame; None for a part of the run's data.
        part: `test`, `validation` or `train`; default the first of them that there is.
        compare_with: folder of another run, whose best model scores the same rows; of `data`, or of a part of its own
            data that has the same rows.
        checkpoint: `best`, `latest` or a checkpoint's name.
        label: of the task; default the schema's first.
        data_format, bad_rows: of `data`; default as in training.
        batch_size: rows scored at once.
        sample_rows: rows kept whole.
        minimum_rows: of a slice; default by the number of rows, 200 at most.
        projector: a new folder for the vectors of the most frequent ids; see `projector.write_projector`.
        seed: of the sample, the bootstrap and permutations.

    Raises:
        ValueError, OSError: of the model's folder or of the data; each named.
        ImportError: scikit-learn is not installed.

    Example:
        >>> report = make_report("runs/clicks")
        >>> print(report.verdict[0])
    """
    check_integer("make_report", "sample_rows", sample_rows, minimum=1)
    check_optional(check_integer, "make_report", "minimum_rows", minimum_rows, minimum=2)
    options: dict[str, Any] = {"batch_size": batch_size, "sample_rows": sample_rows, "seed": seed}
    reading: dict[str, Any] = {"data": data, "data_format": data_format, "bad_rows": bad_rows}
    model, config, preprocessing = load_run(model_dir, checkpoint)
    tasks = preprocessing.spec.labels
    label = label or tasks[0]
    check_choice("make_report", "label", label, tasks)
    dataset, rows_of, books = labelled_rows(config, preprocessing, part=part, **reading)
    traced: dict[str, Any] = {}
    rows = score_rows(model, dataset, task=tasks.index(label), traced=traced, **options)
    bins = score_bins(rows.labels, rows.logits)
    metrics = evaluate_arrays(rows.labels, rows.logits)
    intervals = bootstrap_intervals(bins, metrics, seed)
    best = None if rows.best is None else evaluate_arrays(rows.labels, rows.best, from_logits=False)
    curves = curves_of(rows, bins, seed)
    learning = _learning(ModelDir(model_dir), checkpoint, config)
    minimum_rows = minimum_rows or enough_rows(rows.sample.num_rows)
    names = ValueNames(preprocessing, rows.sample)
    if projector is not None:
        write_projector(Path(projector), model, rows, names)
    importance, ids = find_importance(model, rows, names, batch_size=batch_size, seed=seed, traced=traced)
    notes = [*_of_training(learning, label), *_of_rows(rows, tasks, label)]
    comparison = None
    if compare_with is not None:
        other = _scored_by_other(compare_with, label, rows_of if data is None else None, reading, options)
        comparison = compare(
            rows,
            other,
            names,
            metrics=metrics,
            other_metrics=evaluate_arrays(other.labels, other.logits),
            other_dir=str(compare_with),
            minimum_rows=minimum_rows,
            seed=seed,
        )
    drift = tails = None
    try:
        drift, tails = find_drift(rows, run_background(model_dir, preprocessing, config))
    except ValueError as error:
        notes.append(f"Drift from the training rows is not told: {error}")
    notes += _of_drift(drift or ())
    return ModelReport(
        model_dir=str(model_dir),
        checkpoint=ModelDir(model_dir).checkpoint_name(checkpoint),
        rows_of=rows_of,
        books=str(books),
        label=label,
        rows=rows,
        verdict=verdict_of(metrics, intervals, curves.reliability, best),
        metrics=metrics,
        intervals=intervals,
        constant=constant_metrics(metrics["base_rate"]),
        best=best,
        curves=curves,
        learning=learning,
        slices=find_slices(rows, names, minimum_rows),
        minimum_rows=minimum_rows,
        importance=importance,
        ids=ids,
        tables=table_usage(model),
        drift=drift,
        tails=tails,
        comparison=comparison,
        notes=notes,
    )


def _scored_by_other(
    model_dir: str | os.PathLike[str],
    label: str,
    rows_of: str | None,
    reading: Mapping[str, Any],
    options: Mapping[str, Any],
) -> ScoredRows:
    """The same rows, scored by another run's best model."""
    model, config, preprocessing = load_run(model_dir)
    tasks = preprocessing.spec.labels
    if label not in tasks:
        raise ValueError(f"{model_dir}: its labels are {', '.join(tasks)}, and {quoted(label)} is to be compared.")
    part = None if rows_of is None else rows_of.removesuffix(" part")
    dataset, _, _ = labelled_rows(config, preprocessing, part=part, **reading)
    return score_rows(model, dataset, task=tasks.index(label), **options)


def constant_metrics(rate: float) -> dict[str, float]:
    """Metrics of rows with this share of positives that all have it as their score."""
    both = 0 < rate < 1
    return {
        "base_rate": rate,
        "auc": 0.5 if both else math.nan,
        "pr_auc": rate if rate > 0 else math.nan,
        "log_loss": binary_entropy(rate),
        "normalized_entropy": 1.0 if both else math.nan,
        "calibration": 1.0 if rate > 0 else math.nan,
        "accuracy": max(rate, 1.0 - rate),
    }


def _learning(folder: ModelDir, checkpoint: str, config: ExperimentConfig) -> Learning:
    history, epochs, patience = (
        read_history(folder.history_file),
        config.train.epochs,
        config.train.early_stopping_patience,
    )
    name, best, checkpoints = folder.checkpoint_name(checkpoint), folder.read_best(), folder.checkpoints()
    chosen, monitor = None, ""
    if best is not None and best["checkpoint"] == name:
        chosen, monitor = best["epoch"], best["monitor"]
    else:
        step = checkpoints.read_state(name).step
        chosen = next((int(line["epoch"]) for line in history if line["step"] == step), None)
    waited = checkpoints.read_state(folder.checkpoint_name("latest")).epochs_without_improvement
    has_ended = len(history) >= epochs or (patience is not None and waited >= patience)
    return Learning(history=history, epochs=epochs, chosen_epoch=chosen, monitor=monitor, has_ended=has_ended)


def _of_training(learning: Learning, label: str) -> Iterator[str]:
    if not learning.has_ended:
        yield f"Training has {len(learning.history)} of {learning.epochs} epochs: it was interrupted, or goes on."
    losses = {
        int(line["epoch"]): line[name]
        for line in learning.history
        for name in (f"val_{label}_log_loss", "val_log_loss")
        if name in line
    }
    chosen = learning.chosen_epoch
    if chosen in losses and losses[chosen] > 1.01 * min(losses.values()):
        least = min(losses, key=lambda epoch: losses[epoch])
        by = f" was chosen by {learning.monitor}" if learning.monitor else ""
        yield (
            f"Epoch {chosen + 1}{by}: its validation log loss is {losses[chosen]:.4f}, that of epoch {least + 1} "
            f"{losses[least]:.4f}. For probabilities, choose by it: train.monitor=val_log_loss."
        )


def _of_rows(rows: ScoredRows, tasks: Sequence[str], label: str) -> Iterator[str]:
    if not rows.is_whole:
        yield (
            f"Slices and drift are of {len(rows.numbers):,} rows drawn at random from {rows.num_rows:,}; metrics and "
            "curves are of all."
        )
    permuted = importance_rows(rows.spec, rows.sample.num_rows)
    if permuted < rows.num_rows:
        yield f"Importance is of {permuted:,} rows drawn at random."
    if len(tasks) > 1:
        others = ", ".join(task for task in tasks if task != label)
        yield f"Of the label {label}. The model has others: {others}."


def _of_drift(drift: Sequence[ColumnDrift]) -> Iterator[str]:
    far = [each for each in drift if drifted(each)]
    if far:
        shown = ", ".join(f"{shortened(each.name)} (PSI {each.psi:.2f})" for each in far[:_SHOWN_DRIFT])
        more = f" and {len(far) - _SHOWN_DRIFT} more" if len(far) > _SHOWN_DRIFT else ""
        yield f"Other than in the training rows are: {shown}{more}. See the drift."


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
