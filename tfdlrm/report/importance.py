"""Importance: what a model loses when the values of a column are dealt out anew, and which ids move its logits.

Permutation importance (Breiman 2001; Fisher, Rudin, Dominici 2019): the log loss of rows whose column was permuted,
less that of the rows as they are. Columns that are made of one raw column, and those that share a table, are permuted
together, so that importance is not hidden by what another column knows of the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfdlrm.data.columns import Columns, permuted
from tfdlrm.data.dataset import InMemoryDataset, some_of
from tfdlrm.metrics.evaluation import log_losses
from tfdlrm.metrics.grouped_auc import group_aucs
from tfdlrm.report.groups import Grouping, ValueNames, id_groupings
from tfdlrm.report.score_bins import Interval
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.evaluation import Scorer

REPEATS = 5
_SCORED_ROWS = 3_000_000  # over all columns and repeats
_MOST_ROWS = 100_000
_LEAST_ROWS = 5_000
_LEAST_ID_ROWS = 20
MOST_IDS = 20


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What is lost without what some columns tell.

    Args:
        name: of the raw column that they are made of, or of all of them.
        columns: permuted together: those of one raw column (a number and its bins), and those that read one table.
        loss_increase: of the mean log loss, nats; the mean over repeats.
        interval: 95 % of it, over rows and repeats.
        spread: standard deviation over repeats.
        auc_drop: mean over repeats; NaN where one class is missing.
    """

    name: str
    columns: tuple[str, ...]
    loss_increase: float
    interval: Interval
    spread: float
    auc_drop: float


@dataclass(frozen=True, kw_only=True)
class IdEffect:
    """How an id moves the logits of its rows, against values dealt out anew.

    Args:
        column, value: which.
        rows: that have it.
        effect: mean of logit - logit with the column permuted.
        share: of what the column does to all logits: rows effect^2 / the sum of that over all its ids.
    """

    column: str
    value: str
    rows: int
    effect: float
    share: float


def importance_rows(spec: FeatureSpec, available: int) -> int:
    """How many rows are permuted: fewer, the more columns there are."""
    count = max(len(permuted_together(spec)), 1)
    return min(available, _MOST_ROWS, max(_SCORED_ROWS // (count * REPEATS), _LEAST_ROWS))


def find_importance(
    model: keras.Model, rows: ScoredRows, names: ValueNames, *, batch_size: int, seed: int = 0, traced: Any = None
) -> tuple[list[Importance], list[IdEffect]]:
    """Importance of every raw column, or of those that share a table, most important first; and the ids that matter.

    Args:
        model: that scored the rows.
        rows: with a sample.
        names: of ids.
        batch_size: rows scored at once.
        seed: of the permutations.
        traced: see `Scorer`.
    """
    spec, traced = rows.spec, {} if traced is None else traced
    numbers = some_of(rows.sample.num_rows, importance_rows(spec, rows.sample.num_rows), seed)
    sample, labels, logits = rows.sample.take(numbers), rows.sample_labels[numbers], rows.sample_logits[numbers]
    losses, auc = log_losses(labels, logits), _auc(labels, logits)
    random = np.random.default_rng(seed)
    found, effects = [], []
    by_column = {each.column: each for each in id_groupings(spec, sample)}
    for name, columns in permuted_together(spec):
        increases, drops, permuted_logits = [], [], np.zeros(len(labels))
        for _ in range(REPEATS):
            dealt = permuted(spec, sample, columns, random.permutation(len(labels)))
            scored = _scores(model, spec, dealt, rows.task, batch_size, traced)
            increases.append(log_losses(labels, scored) - losses)
            drops.append(auc - _auc(labels, scored))
            permuted_logits += scored / REPEATS
        mean, means = np.mean(increases, axis=0), np.mean(increases, axis=1)
        # rows are shared by all repeats; each repeat adds an error of its own
        spread = float(means.std(ddof=1))
        half = (
            1.96 * math.sqrt(float(mean.var(ddof=1)) / len(mean) + spread**2 / REPEATS) if len(mean) > 1 else math.nan
        )
        total = float(means.mean())
        found.append(
            Importance(
                name=name,
                columns=columns,
                loss_increase=total,
                interval=(total - half, total + half),
                spread=spread,
                auc_drop=float(np.mean(drops)),
            )
        )
        for column in (name for name in columns if name in by_column):
            effects += _effects(by_column[column], logits - permuted_logits, names)
    found.sort(key=lambda each: -each.loss_increase)
    weights = {column: max(each.loss_increase, 0.0) for each in found for column in each.columns}
    effects.sort(key=lambda each: -weights[each.column] * each.share)
    return found, effects[:MOST_IDS]


def permuted_together(spec: FeatureSpec) -> list[tuple[str, tuple[str, ...]]]:
    """(name, columns) of what is permuted together, in the order of the schema."""
    marks = [(column.name, {("raw", column.name)}) for column in spec.dense]
    marks += [(column.name, {("raw", column.raw_name), ("table", column.table)}) for column in spec.categorical]
    units: list[tuple[list[str], set[tuple[str, str]]]] = []
    for name, own in marks:
        joined = [unit for unit in units if unit[1] & own]
        columns = [*(column for unit in joined for column in unit[0]), name]
        united = own.union(*(unit[1] for unit in joined))
        place = units.index(joined[0]) if joined else len(units)
        units = [unit for unit in units if unit not in joined]
        units.insert(place, (columns, united))
    return [(_name(united, columns), tuple(columns)) for columns, united in units]


def _name(marks: set[tuple[str, str]], columns: Sequence[str]) -> str:
    raw = {name for kind, name in marks if kind == "raw"}
    if len(raw) == 1:
        (only,) = raw
        return only
    tables = sorted(name for kind, name in marks if kind == "table")
    return f"{', '.join(columns)} (table {', '.join(tables)})"


def _scores(
    model: keras.Model, spec: FeatureSpec, rows: Columns, task: int, batch_size: int, traced: Any
) -> np.ndarray:
    batches = InMemoryDataset(spec, rows).batches(batch_size)
    return np.concatenate([found[:, task] for _, found in Scorer(model, batches, traced).scored()])


def _auc(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(group_aucs(np.zeros(len(labels), np.int64), logits, labels).aucs[0])


def _effects(grouping: Grouping, moved: np.ndarray, names: ValueNames) -> list[IdEffect]:
    codes, place, counts = np.unique(grouping.codes, return_inverse=True, return_counts=True)
    if not len(codes):
        return []
    means = np.bincount(place, moved[grouping.row_numbers], len(codes)) / counts
    power = counts * means**2
    kept = np.flatnonzero(counts >= _LEAST_ID_ROWS)
    kept = kept[np.argsort(-power[kept], kind="stable")[:MOST_IDS]]
    shares = power / max(float(power.sum()), 1e-300)
    return [
        IdEffect(
            column=grouping.column, value=value, rows=int(counts[k]), effect=float(means[k]), share=float(shares[k])
        )
        for k, value in zip(kept, names.of(grouping.column, codes[kept]), strict=True)
    ]
