"""Slices: where a model is wrong. Every value of every column that has enough rows, and pairs of them where it pays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tfdlrm.metrics.evaluation import log_losses, probability_of
from tfdlrm.metrics.grouped_auc import group_aucs
from tfdlrm.report.curves import wilson
from tfdlrm.report.groups import Grouping, ValueNames, groupings
from tfdlrm.report.scipy_extra import stats
from tfdlrm.report.score_bins import Interval
from tfdlrm.report.scored_rows import ScoredRows

MINIMUM_ROWS = 200
_FEWEST_ROWS = 50  # below, the normal approximations do not hold
FALSE_DISCOVERY_RATE = 0.05
_MOST_VALUES = 1000  # of a column, the most frequent ones
_PAIRED_COLUMNS = 6
_PAIRED_VALUES = 50


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows that have one value, or two.

    Args:
        columns, values: what they have.
        rows, positives: how many.
        predicted: mean probability.
        auc: NaN where one class is missing.
        auc_interval: DeLong's, on the scale of the log odds; NaN where a class has fewer than two rows.
        log_loss: mean, nats.
        ratio: predicted / observed positives; infinite where none is observed.
        ratio_interval: from Wilson's 95 % interval of the observed rate.
        p_value: of what is observed, were every probability right; or, where that is larger, were it right when the log
            odds of all rows are shifted alike, so that they are right on the whole. What is wrong everywhere is no
            slice's fault, and what is right is not wrong because the rest is.
        cost: share of the rows x the divergence, in nats, of the observed rate from the mean prediction, of those two
            the smaller one: about what a row of all rows would gain, were the slice shifted to what is observed.
        is_wrong: the p-value stands out among those of all slices, of which `FALSE_DISCOVERY_RATE` are so by chance
            (Benjamini, Hochberg 1995).
        alike: names of other slices of the very same rows.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows: int
    positives: int
    predicted: float
    auc: float
    auc_interval: Interval
    log_loss: float
    ratio: float
    ratio_interval: Interval
    p_value: float
    cost: float
    is_wrong: bool = False
    alike: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Positives / rows."""
        return self.positives / self.rows

    @property
    def name(self) -> str:
        """As a person would say it."""
        name = " and ".join(f"{column} = {value}" for column, value in zip(self.columns, self.values, strict=True))
        if not self.alike:
            return name
        more = f" and {len(self.alike) - 1} more" if len(self.alike) > 1 else ""
        return f"{name} (the same rows: {self.alike[0]}{more})"


def find_slices(rows: ScoredRows, names: ValueNames, minimum_rows: int = MINIMUM_ROWS) -> list[Slice]:
    """All slices of the sample, worst first: those that are wrong by what they cost, then the others likewise.

    Single values first; pairs are taken of the columns whose slices stand out most, and kept where a pair is wrong by
    more than each of its halves.

    Args:
        rows: with a sample.
        names: of values.
        minimum_rows: of a slice.
    """
    labels, logits = rows.sample_labels, rows.sample_logits
    table = _Table(labels, logits)
    single: list[tuple[Grouping, dict[int, Slice]]] = []
    for grouping in groupings(rows.spec, rows.sample):
        codes, found = table.slices(grouping.codes, grouping.rows, minimum_rows)
        texts = names.of(grouping.column, codes)
        named = [replace(s, columns=(grouping.column,), values=(t,)) for s, t in zip(found, texts, strict=True)]
        single.append((grouping, dict(zip(codes.tolist(), named, strict=True))))
    pairs = list(_pairs(table, single, names, minimum_rows))
    return ranked([*(each for _, found in single for each in found.values()), *pairs])


def enough_rows(num_rows: int) -> int:
    """Rows that a slice needs, of so many: 200, and of small data fewer, so that something can be seen at all.

    Example:
        >>> enough_rows(1_000_000), enough_rows(2000), enough_rows(100)
        (200, 80, 50)
    """
    return min(MINIMUM_ROWS, max(num_rows // 25, _FEWEST_ROWS))


def ranked(slices: Iterable[Slice]) -> list[Slice]:
    """With `is_wrong` told, worst first; of slices of the same rows, by all their numbers, the first."""
    distinct: dict[tuple[float, ...], Slice] = {}
    for each in slices:
        key = (each.rows, each.positives, round(each.predicted, 9), round(each.log_loss, 9))
        known = distinct.setdefault(key, each)
        if known is not each:
            distinct[key] = replace(known, alike=(*known.alike, each.name))
    slices = list(distinct.values())
    if not slices:
        return []
    adjusted = stats.false_discovery_control([each.p_value for each in slices])
    told = [replace(each, is_wrong=bool(p < FALSE_DISCOVERY_RATE)) for each, p in zip(slices, adjusted, strict=True)]
    return sorted(told, key=lambda each: (not each.is_wrong, -each.cost))


class _Table:
    """Sums over the rows that are sliced."""

    def __init__(self, labels: np.ndarray, logits: np.ndarray) -> None:
        self.labels, self.logits = labels, logits
        self.probabilities = probability_of(logits)
        self.shifted = probability_of(logits.astype(np.float64) + _overall_shift(labels, logits))
        self.losses = log_losses(labels, logits)
        self._by_score = np.argsort(logits, kind="stable")

    def slices(
        self, codes: np.ndarray, rows: np.ndarray | None, minimum_rows: int, most: int = _MOST_VALUES
    ) -> tuple[np.ndarray, list[Slice]]:
        """The codes with enough rows, and their slices, without names."""
        distinct, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
        chosen = np.flatnonzero(counts >= minimum_rows)
        chosen = np.sort(chosen[np.argsort(-counts[chosen], kind="stable")[:most]])
        if not len(chosen):
            return distinct[:0], []
        new = np.full(len(distinct), -1)
        new[chosen] = np.arange(len(chosen))
        place = new[place]
        kept = place >= 0
        place = place[kept]
        numbers = np.flatnonzero(kept) if rows is None else rows[kept]
        labels, p, shifted = self.labels[numbers], self.probabilities[numbers], self.shifted[numbers]

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(place, values, len(chosen))

        n, positives, predicted, expected = total(np.ones(len(place))), total(labels), total(p), total(shifted)
        deviations = np.stack(
            [
                (positives - mean) / np.sqrt(np.maximum(total(given * (1 - given)), 1e-12))
                for mean, given in ((predicted, p), (expected, shifted))
            ]
        )
        deviation = np.abs(deviations).min(axis=0)
        order = None
        if rows is None:
            # rows are in the order of their scores already; small whole numbers are sorted by counting
            by_score = (np.cumsum(kept) - 1)[self._by_score[kept[self._by_score]]]
            order = by_score[np.argsort(place[by_score].astype(np.uint16), kind="stable")]
        aucs = group_aucs(place, self.logits[numbers], labels, order=order)
        low, high = wilson(positives, n)
        losses = total(self.losses[numbers])
        found = []
        for k in range(len(chosen)):
            rate, mean = positives[k] / n[k], predicted[k] / n[k]
            found.append(
                Slice(
                    columns=(),
                    values=(),
                    rows=int(n[k]),
                    positives=int(positives[k]),
                    predicted=float(mean),
                    auc=float(aucs.aucs[k]),
                    auc_interval=auc_interval(float(aucs.aucs[k]), float(aucs.variances[k])),
                    log_loss=float(losses[k] / n[k]),
                    ratio=float(mean / rate) if rate else math.inf,
                    ratio_interval=(float(mean / high[k]), float(mean / low[k]) if low[k] > 0 else math.inf),
                    p_value=float(2.0 * stats.norm.sf(deviation[k])),
                    cost=float(
                        n[k] / len(self.labels) * min(_divergence(rate, mean), _divergence(rate, expected[k] / n[k]))
                    ),
                )
            )
        return distinct[chosen], found


def _overall_shift(labels: np.ndarray, logits: np.ndarray) -> float:
    """What added to all log odds makes the sum of probabilities that of the labels; 0 where none does."""
    wanted, logits = float(labels.sum()), logits.astype(np.float64)
    if not 0 < wanted < len(labels):
        return 0.0
    shift = 0.0
    for _ in range(50):
        p = probability_of(logits + shift)
        slope = float((p * (1 - p)).sum())
        step = (wanted - float(p.sum())) / max(slope, 1e-12)
        step = min(max(step, -2.0), 2.0)  # Newton's, kept from leaping where probabilities are nearly 0 or 1
        shift += step
        if abs(step) < 1e-9:
            break
    return shift


def _pairs(
    table: _Table, single: Sequence[tuple[Grouping, dict[int, Slice]]], names: ValueNames, minimum_rows: int
) -> Iterable[Slice]:
    """Pairs of values that are wrong by more than each of their halves."""

    def salience(found: dict[int, Slice]) -> float:
        return max((each.cost for each in found.values()), default=0.0)

    flat = [(g, found) for g, found in single if g.rows is None and len(found) > 1]
    flat = sorted(flat, key=lambda pair: -salience(pair[1]))[:_PAIRED_COLUMNS]
    frequent = [(grouping.column, *_frequent(grouping.codes), found) for grouping, found in flat]
    for one, other in itertools.combinations(frequent, 2):
        (column_one, ranks_one, top_one, of_one), (column_other, ranks_other, top_other, of_other) = one, other
        rows = np.flatnonzero((ranks_one >= 0) & (ranks_other >= 0))
        codes, found = table.slices(ranks_one[rows] * _PAIRED_VALUES + ranks_other[rows], rows, minimum_rows)
        names_one, names_other = names.of(column_one, top_one), names.of(column_other, top_other)
        for code, each in zip(codes.tolist(), found, strict=True):
            first, second = divmod(code, _PAIRED_VALUES)
            values = names_one[first], names_other[second]
            halves = [
                half for half in (of_one.get(top_one[first]), of_other.get(top_other[second])) if half is not None
            ]
            # "where it pays": far more than either half tells, which has at least as many rows
            if all(_excess(each) > 1.5 * _excess(half) and each.cost > half.cost for half in halves):
                yield replace(each, columns=(column_one, column_other), values=values)


def _excess(each: Slice) -> float:
    """By how much predicted and observed differ, in log odds."""
    rate = (each.positives + 0.5) / (each.rows + 1.0)
    p = min(max(each.predicted, 1e-9), 1 - 1e-9)
    return abs(math.log(p / (1 - p)) - math.log(rate / (1 - rate)))


def _frequent(codes: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The rank of each code among the most frequent ones, -1 for others, int64 [N]; and the codes of those ranks."""
    distinct, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
    ranks = np.full(len(distinct), -1)
    top = np.argsort(-counts, kind="stable")[:_PAIRED_VALUES]
    ranks[top] = np.arange(len(top))
    return ranks[place], distinct[top].tolist()


def auc_interval(auc: float, variance: float, level: float = 0.95) -> Interval:
    """An interval within [0, 1]: normal on the scale of the log odds.

    Args:
        auc, variance: as from `group_aucs`.
        level: of confidence.
    """
    if math.isnan(auc) or math.isnan(variance):
        return math.nan, math.nan
    if not 0 < auc < 1 or variance <= 0:
        return math.nan, math.nan  # no pair of rows is in the wrong order: that does not tell how often one will be
    z = float(stats.norm.ppf(0.5 + level / 2))
    odds, half = math.log(auc / (1 - auc)), z * math.sqrt(variance) / (auc * (1 - auc))
    return 1 / (1 + math.exp(-(odds - half))), 1 / (1 + math.exp(-(odds + half)))


def _divergence(rate: float, predicted: float) -> float:
    """Nats a row that a constant `predicted` loses against the constant `rate`."""
    predicted = min(max(predicted, 1e-12), 1 - 1e-12)
    found = 0.0
    if rate > 0:
        found += rate * math.log(rate / predicted)
    if rate < 1:
        found += (1 - rate) * math.log((1 - rate) / (1 - predicted))
    return max(found, 0.0)
