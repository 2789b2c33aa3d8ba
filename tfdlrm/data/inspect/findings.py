"""Findings: what in a report deserves a look, in words; drift of columns, and columns that tell the label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfdlrm.data.inspect.dense_stats import DenseTally, number_text
from tfdlrm.data.inspect.id_stats import CountTable
from tfdlrm.data.inspect.report import (
    LARGE_PSI,
    NOTABLE_PSI,
    BadRowCount,
    ColumnDrift,
    DenseStats,
    Finding,
    IdStats,
    LabelStats,
)
from tfdlrm.data.transforms import transform_dense
from tfdlrm.pages.tables import percent
from tfdlrm.schema import DenseColumn, FeatureSpec

_LOG_CHANCE = math.log(1e-6)


def dense_leak(tally: DenseTally, task: int) -> str | None:
    """How a dense column tells a label, None if it does not.

    Args:
        tally: of all rows; every row has a label.
        task: number of the label.
    """
    present, missing = tally.present_by_label[task], tally.missing_by_label[task]
    low, high = tally.low[task], tally.high[task]
    if _is_unlikely(present):
        if tally.same[task]:
            return "equals the label"
        if tally.opposite[task]:
            return "equals 1 - label"
        if high[0] < low[1] or high[1] < low[0]:
            larger = 1 if high[0] < low[1] else 0
            bounds = f"{number_text(high[1 - larger])} and {number_text(low[larger])}"
            return f"separates the label: label {larger} is above, the other below the gap between {bounds}"
    for label in (0, 1):
        counts = np.array([present[1 - label], missing[label]])
        if not present[label] and not missing[1 - label] and _is_unlikely(counts):
            return f"is empty exactly where the label is {label}"
    table = tally.table()
    return None if table is None else table_leak(table, task)


def table_leak(table: CountTable, task: int) -> str | None:
    """Whether all rows of each id (or value) have one label.

    Ids seen once show nothing. By chance, n rows of an id are all alike with probability r^n + (1 - r)^n, r the
    label rate.

    Args:
        table: every row of it has a label.
        task: number of the label.
    """
    totals, positives = table.totals, table.positives[:, task]
    num, ones = int(totals.sum()), int(positives.sum())
    if not 0 < ones < num or not ((positives == 0) | (positives == totals)).all():
        return None
    n, rate = totals.astype(np.float64), ones / num
    likely, unlikely = math.log(max(rate, 1.0 - rate)), math.log(min(rate, 1.0 - rate))
    log_chance = float((n * likely + np.log1p(np.exp(n * (unlikely - likely))))[totals > 1].sum())
    if log_chance > _LOG_CHANCE:
        return None
    return "separates the label: all rows of one value have the same label"


def _is_unlikely(counts: np.ndarray) -> bool:
    """Whether rows of two labels stand apart in an order more perfectly than chance would have it: 2 / C(n, k)."""
    n, k = int(counts.sum()), int(counts[1])
    if not 0 < k < n:
        return False
    log_choices = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.log(2.0) - log_choices < _LOG_CHANCE


_NUM_TENTHS = 10
_NUM_TOP_IDS = 50


def population_stability(train: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The index, and what it hardly exceeds without drift.

    Without drift, psi / (1/n + 1/m) is about chi-squared with bins - 1 degrees of freedom; the second number is
    the mean plus three standard deviations of that.

    Args:
        train, other: occurrences a bin.

    Example:
        >>> population_stability(np.array([100, 100]), np.array([100, 100]))[0]
        0.0
    """
    filled = (train > 0) | (other > 0)
    train, other = train[filled], other[filled]
    if not train.sum() or not other.sum():
        raise ValueError("population_stability: a part has no occurrence. Compare parts that have rows.")
    p = (train + 0.5) / (train + 0.5).sum()
    q = (other + 0.5) / (other + 0.5).sum()
    freedom = len(train) - 1
    noise = (freedom + 3.0 * math.sqrt(2.0 * freedom)) * (1.0 / float(train.sum()) + 1.0 / float(other.sum()))
    return float(((q - p) * np.log(q / p)).sum()), noise


def dense_bins(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences of both parts a bin.

    Args:
        train, other: float64, NaN where the cell is empty.
    """
    present = train[~np.isnan(train)]
    edges = np.unique(np.quantile(present, np.arange(1, _NUM_TENTHS) / _NUM_TENTHS)) if len(present) else np.zeros(0)

    def counted(cells: np.ndarray) -> np.ndarray:
        missing = np.isnan(cells)
        inside = np.bincount(np.searchsorted(edges, cells[~missing], side="left"), minlength=len(edges) + 1)
        return np.append(inside, np.count_nonzero(missing))

    return counted(train), counted(other)


def unseen_share(table: CountTable, part: int, occurrences: np.ndarray, unseen_id: int | None = None) -> float | None:
    """Occurrences of a part whose id train (part 0) does not have / all of the part.

    Args:
        table: counts of every part.
        part: the part.
        occurrences: int64 [parts].
        unseen_id: the id that stands for every unseen value.
    """
    if not occurrences[part]:
        return None
    unseen = (table.weights * table.counts[:, part])[_is_unseen(table, unseen_id)].sum()
    return min(1.0, float(unseen) / float(occurrences[part]))


def id_bins(
    table: CountTable, part: int, occurrences: np.ndarray, unseen_id: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Occurrences of train and of `part` a bin: frequent ids of train, and the rest. See `unseen_share`."""
    # test's share of the row of unseen values says nothing, either, if the vocabulary was made of train
    is_unseen = _is_unseen(table, unseen_id)
    top = np.argsort(-np.where(is_unseen, 0, table.counts[:, 0]), kind="stable")[:_NUM_TOP_IDS]
    top = top[~is_unseen[top]]
    bins = []
    for each in (0, part):
        counts = table.counts[top, each]
        bins.append(np.append(counts, occurrences[each] - counts.sum()))
    return bins[0], bins[1]


def _is_unseen(table: CountTable, unseen_id: int | None) -> np.ndarray:
    is_unseen = np.asarray(table.counts[:, 0] == 0)
    if unseen_id is not None:
        is_unseen = is_unseen | (table.tokens == unseen_id).to_numpy()
    return is_unseen


_DOMINANT_SHARE = 0.5
_MOSTLY_MISSING = 0.5
_NOTABLE_UNSEEN = 0.05


def find(
    spec: FeatureSpec,
    *,
    labels: Sequence[LabelStats],
    dense: Sequence[DenseStats],
    categorical: Sequence[IdStats],
    drift: Sequence[ColumnDrift],
    bad_rows: Sequence[BadRowCount],
    leaks: Mapping[str, Sequence[str]],
    num_rows: int,
    is_prepared: bool,
) -> tuple[Finding, ...]:
    """All findings, warnings first.

    Args:
        spec: the columns.
        labels, dense, categorical, drift, bad_rows: of the report.
        leaks: column -> what tells a label.
        num_rows: usable rows.
        is_prepared: dense values are transformed and filled.
    """
    found = [
        *_of_rows(num_rows, bad_rows),
        *_of_labels(labels, num_rows),
        *(_warning(column, text) for column, texts in leaks.items() for text in texts),
    ]
    for column, numbers in zip(spec.dense, dense, strict=True):
        found += _of_dense(column, numbers, is_prepared)
    for ids in categorical:
        found += _of_ids(ids)
    found += _of_drift(spec, drift, is_prepared)
    return tuple(sorted(found, key=lambda finding: finding.severity == "note"))


def _warning(column: str, text: str) -> Finding:
    return Finding(severity="warning", column=column, text=text)


def _note(column: str, text: str) -> Finding:
    return Finding(severity="note", column=column, text=text)


def _of_rows(num_rows: int, bad_rows: Sequence[BadRowCount]) -> Iterator[Finding]:
    if not num_rows:
        yield _warning("", "no row can be used. See the bad rows, and check format and schema.")
    num_bad = sum(row.rows for row in bad_rows)
    if num_bad:
        share = num_bad / (num_bad + num_rows)
        yield _warning("", f"{num_bad:,} rows ({share:.2%}) cannot be read and are in no number of this report.")


def _of_labels(labels: Sequence[LabelStats], num_rows: int) -> Iterator[Finding]:
    for label in labels:
        if num_rows and not label.rows:
            yield _note(label.name, "no row has a label: nothing is said about label rates and leaks.")
        elif label.rows < num_rows:
            yield _warning(label.name, f"{num_rows - label.rows:,} rows have no label.")
        if label.rows and label.rate in (0.0, 1.0):
            yield _warning(label.name, f"every label is {label.rate:.0f}: there is nothing to learn.")


def _of_dense(column: DenseColumn, numbers: DenseStats, is_prepared: bool) -> Iterator[Finding]:
    if numbers.missing_rate is None:
        return
    if not numbers.quantiles:
        yield _warning(column.name, "every cell is empty. Remove the column.")
        return
    top = numbers.top[0]
    if numbers.exact_counts and numbers.distinct == 1:
        empty = ", or the cell is empty" if numbers.missing_rate else ""
        yield _warning(column.name, f"constant: every value is {top.value}{empty}. Remove the column.")
        return
    of_all = top.share * (1.0 - numbers.missing_rate)
    if of_all > _DOMINANT_SHARE and float(top.value) != _missing_value(column, is_prepared):
        yield _warning(
            column.name,
            f"one value, {top.value}, holds {of_all:.1%} of the rows. Does it stand for a missing one?",
        )
    if numbers.missing_rate > _MOSTLY_MISSING:
        yield _note(column.name, f"{numbers.missing_rate:.1%} of the cells are empty.")


def _missing_value(column: DenseColumn, is_prepared: bool) -> float | None:
    """The number that stands in for an empty cell, as `number_text` writes it."""
    if column.missing is None:
        return None
    value = column.missing
    if is_prepared:
        value = float(transform_dense(column, np.array([value]))[0])
    return float(f"{value:.9g}")


def _of_ids(ids: IdStats) -> Iterator[Finding]:
    if ids.missing_rate is not None and not ids.occurrences:
        yield _warning(ids.name, "every bag is empty. Remove the column.")
    elif ids.distinct == 1:
        yield _warning(ids.name, f"constant: the only id is {ids.top[0].value}. Remove the column.")
    if ids.missing_rate is not None and ids.occurrences and ids.missing_rate > _MOSTLY_MISSING:
        yield _note(ids.name, f"{ids.missing_rate:.1%} of the cells are empty.")


def _of_drift(spec: FeatureSpec, drift: Sequence[ColumnDrift], is_prepared: bool) -> Iterator[Finding]:
    closed = {
        column.name
        for column in spec.categorical
        if column.encoding in ("vocabulary", "hex") and column.id_policy != "oov"
    }
    for column in drift:
        if column.psi > max(NOTABLE_PSI, column.noise):
            text = f"differs between train and {column.part}: population stability index {column.psi:.3f}"
            if column.psi > LARGE_PSI:
                yield _warning(column.name, f"{text}, a large change.")
            else:
                yield _note(column.name, f"{text}.")
        unseen = column.unseen_share or 0.0
        if unseen and column.name in closed and not is_prepared:
            yield _warning(
                column.name,
                f"{percent(unseen)} of the ids of {column.part} are not in train, and their rows are refused if the "
                "vocabulary is made of train. Set id_policy: oov.",
            )
        elif unseen > _NOTABLE_UNSEEN:
            yield _note(column.name, f"{unseen:.1%} of the ids of {column.part} are not in train.")
