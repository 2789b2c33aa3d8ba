"""Two models on the same rows: which one is better, by how much, where, and which rows they disagree on most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfdlrm.data.dataset import some_of
from tfdlrm.metrics.evaluation import log_losses, probability_of
from tfdlrm.report.groups import ValueNames, groupings
from tfdlrm.report.scipy_extra import stats
from tfdlrm.report.score_bins import LEVEL, Interval, auc_of, percentile_interval, tie_starts
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.report.slices import FALSE_DISCOVERY_RATE, MINIMUM_ROWS
from tfdlrm.schema import ROW_ID

MOST_MOVED = 20
_REPLICATES = 400
_BOOTSTRAP_ROWS = 200_000
_ROWS_AT_ONCE = 20  # replicates


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of both models, and of this model less the other.

    Args:
        metric: its name.
        own, other: of the two.
        interval: 95 % of own - other, by a paired bootstrap.
    """

    metric: str
    own: float
    other: float
    interval: Interval

    @property
    def difference(self) -> float:
        """Own - other."""
        return self.own - self.other


@dataclass(frozen=True, kw_only=True)
class SliceDifference:
    """Rows of one value, and the log loss of this model less that of the other.

    Args:
        column, value: what the rows have.
        rows, positives: how many.
        loss: mean difference, nats; above 0 this model is worse.
        interval: 95 % of it.
    """

    column: str
    value: str
    rows: int
    positives: int
    loss: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class MovedRow:
    """A row that the two models score differently.

    Args:
        row: its key `row_id`.
        label: 0 or 1.
        own, other: probabilities.
    """

    row: str
    label: int
    own: float
    other: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """This model beside another one.

    Args:
        other_dir: the other's folder.
        verdict: one sentence.
        differences: of metrics.
        worse, better: slices where this model is worse, and better, by more than chance is in so many slices; furthest
            first.
        moved: rows whose log odds differ most.
        bootstrap_rows: rows that intervals are made of.
    """

    other_dir: str
    verdict: str
    differences: Sequence[Difference]
    worse: Sequence[SliceDifference]
    better: Sequence[SliceDifference]
    moved: Sequence[MovedRow]
    bootstrap_rows: int


def compare(
    rows: ScoredRows,
    other: ScoredRows,
    names: ValueNames,
    *,
    metrics: dict[str, float],
    other_metrics: dict[str, float],
    other_dir: str,
    minimum_rows: int = MINIMUM_ROWS,
    seed: int = 0,
) -> Comparison:
    """Compares two models.

    Args:
        rows, other: of both, the same rows in the same order.
        names: of values, of this model's columns.
        metrics, other_metrics: exact, of both.
        other_dir: what the other is called.
        minimum_rows: of a slice.
        seed: of the bootstrap.

    Raises:
        ValueError: they are not the same rows.
    """
    _check_same(rows, other, other_dir)
    numbers = some_of(rows.num_rows, _BOOTSTRAP_ROWS, seed)
    intervals = paired_intervals(rows.labels[numbers], rows.logits[numbers], other.logits[numbers], seed)
    differences = [
        Difference(metric=name, own=metrics[name], other=other_metrics[name], interval=interval)
        for name, interval in intervals.items()
    ]
    slices = _slices(rows, other, names, minimum_rows)
    return Comparison(
        other_dir=other_dir,
        verdict=_verdict(differences, other_dir),
        differences=differences,
        worse=[each for each in slices if each.loss > 0],
        better=[each for each in reversed(slices) if each.loss < 0],
        moved=_moved(rows, other),
        bootstrap_rows=len(numbers),
    )


def paired_intervals(labels: np.ndarray, own: np.ndarray, other: np.ndarray, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of own - other by a Poisson bootstrap that weights a row alike for both models.

    Args:
        labels: bool [N].
        own, other: logits, [N].
        seed: of the weights.

    Returns:
        (low, high) of `auc`, `log_loss` and `calibration`; NaN where one does not exist.
    """
    random = np.random.default_rng(seed)
    sides = [_Side(labels, logits) for logits in (own, other)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("auc", "log_loss", "calibration")}
    for _ in range(_REPLICATES // _ROWS_AT_ONCE):
        weights = random.poisson(1.0, (_ROWS_AT_ONCE, len(labels))).astype(np.float32)
        first, second = (side.metrics(weights) for side in sides)
        for name, pieces in found.items():
            pieces.append(first[name] - second[name])
    return {name: percentile_interval(np.concatenate(pieces)) for name, pieces in found.items()}


class _Side:
    """One model's part of the paired bootstrap."""

    def __init__(self, labels: np.ndarray, logits: np.ndarray) -> None:
        self._order = np.argsort(logits, kind="stable")
        self._starts = tie_starts(logits[self._order])
        self._is_positive = labels[self._order]
        self._losses = log_losses(labels, logits).astype(np.float32)
        self._probabilities = probability_of(logits).astype(np.float32)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """[R] each.

        Args:
            weights: float32 [R, N], of the rows in their own order.
        """
        ordered = weights[:, self._order].astype(np.float64)
        positives = np.add.reduceat(np.where(self._is_positive, ordered, 0.0), self._starts, axis=1)
        negatives = np.add.reduceat(np.where(self._is_positive, 0.0, ordered), self._starts, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "auc": auc_of(positives, negatives),
                "log_loss": (weights @ self._losses).astype(np.float64) / weights.sum(axis=1, dtype=np.float64),
                "calibration": (weights @ self._probabilities).astype(np.float64) / positives.sum(axis=1),
            }


def _check_same(rows: ScoredRows, other: ScoredRows, other_dir: str) -> None:
    same = rows.num_rows == other.num_rows and bool((rows.labels == other.labels).all())
    if not same or not np.array_equal(rows.sample.keys[ROW_ID], other.sample.keys[ROW_ID]):
        raise ValueError(
            f"{other_dir}: its rows are not those of this model ({other.num_rows:,} and {rows.num_rows:,} rows, of the "
            "same labels only where the data are divided alike). Give one file to both by --data."
        )


def _verdict(differences: Sequence[Difference], other_dir: str) -> str:
    by_name = {each.metric: each for each in differences}
    loss, auc = by_name["log_loss"], by_name["auc"]
    figures = (
        f"log loss {loss.difference:+.5f} (95 %: {loss.interval[0]:+.5f} to {loss.interval[1]:+.5f}), "
        f"AUC {auc.difference:+.5f} (95 %: {auc.interval[0]:+.5f} to {auc.interval[1]:+.5f})"
    )
    if math.isnan(loss.interval[0]):
        return f"Against {other_dir} nothing can be told: {figures}."
    if loss.interval[1] < 0:
        return f"It is better than {other_dir} by log loss: {figures}."
    if loss.interval[0] > 0:
        return f"It is worse than {other_dir} by log loss: {figures}."
    return f"It cannot be told from {other_dir} by log loss: {figures}."


def _slices(rows: ScoredRows, other: ScoredRows, names: ValueNames, minimum_rows: int) -> list[SliceDifference]:
    """Those that stand out, from where this model is worst to where it is best."""
    labels = rows.sample_labels
    gap = log_losses(labels, rows.sample_logits) - log_losses(labels, other.sample_logits)
    found: list[SliceDifference] = []
    p_values: list[float] = []
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    for grouping in groupings(rows.spec, rows.sample):
        codes, place, counts = np.unique(grouping.codes, return_inverse=True, return_counts=True)
        kept = np.flatnonzero(counts >= minimum_rows)
        sums, squares, positives = (
            np.bincount(place, values[grouping.row_numbers], len(codes))[kept] for values in (gap, gap**2, labels)
        )
        means = sums / counts[kept]
        errors = np.sqrt(np.maximum(squares / counts[kept] - means**2, 0.0) / counts[kept])
        for k, value in enumerate(names.of(grouping.column, codes[kept])):
            found.append(
                SliceDifference(
                    column=grouping.column,
                    value=value,
                    rows=int(counts[kept][k]),
                    positives=int(positives[k]),
                    loss=float(means[k]),
                    interval=(float(means[k] - z * errors[k]), float(means[k] + z * errors[k])),
                )
            )
            p_values.append(float(2 * stats.norm.sf(abs(means[k]) / errors[k])) if errors[k] > 0 else 1.0)
    if not found:
        return []
    adjusted = stats.false_discovery_control(p_values)
    told = [each for each, p in zip(found, adjusted, strict=True) if p < FALSE_DISCOVERY_RATE]
    return sorted(told, key=lambda each: -each.loss)


def _moved(rows: ScoredRows, other: ScoredRows) -> list[MovedRow]:
    """The rows of the sample whose log odds differ most."""
    gap = np.abs(rows.sample_logits - other.sample_logits)
    chosen = np.argsort(-gap, kind="stable")[:MOST_MOVED]
    ids = rows.sample.keys[ROW_ID]
    own, theirs = probability_of(rows.sample_logits), probability_of(other.sample_logits)
    return [
        MovedRow(
            row=_text(ids[place]),
            label=int(rows.sample_labels[place]),
            own=float(own[place]),
            other=float(theirs[place]),
        )
        for place in chosen.tolist()
    ]


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
