"""Statistics of a categorical column: how many ids, and how the occurrences spread over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfdlrm.data.cells import Tokens
from tfdlrm.data.inspect.report import IdStats, TopValue
from tfdlrm.data.polars_extra import pl

# Blocks are merged into the table once they hold as many ids as half the table: each id is then moved only
# a few times, however many blocks there are.
_MIN_PENDING_IDS = 2**16
# splitmix64's finalizer (Steele, Lea, Flood 2014): makes every bit of a hash fit for the comparison with theta
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_HASH_SEED = 20190531


@dataclass(frozen=True, kw_only=True)
class CountTable:
    """Ids in falling order of count.

    Args:
        tokens: [K].
        counts: int64 [K, parts], occurrences.
        positives: int64 [K, tasks], occurrences in rows with label 1.
        undercounts: int64 [K], by how much the counts may be too low.
        weights: float64 [K], ids that each stands for in sums over occurrences; all 1 if exact.
        sample: bool [K], ids of the sample; all if exact.
        theta: fraction of the distinct ids in the sample, 1 if exact.
    """

    tokens: pl.Series
    counts: np.ndarray
    positives: np.ndarray
    undercounts: np.ndarray
    weights: np.ndarray
    sample: np.ndarray
    theta: float

    @property
    def exact(self) -> bool:
        """Whether every id is in the table."""
        return self.theta == 1.0

    @property
    def totals(self) -> np.ndarray:
        """int64 [K], occurrences in all parts."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def distinct(self) -> int:
        """Distinct ids, rounded if estimated."""
        return round(int(self.sample.sum()) / self.theta)

    @property
    def once(self) -> int:
        """Distinct ids seen once, rounded if estimated."""
        return round(int((self.sample & (self.totals == 1)).sum()) / self.theta)

    @property
    def relative_error(self) -> float:
        """Standard error of `distinct` / `distinct`."""
        return 0.0 if self.exact else math.sqrt((1.0 - self.theta) / max(1, int(self.sample.sum())))


class IdCounts:
    """Counts the ids of one column in bounded memory.

    A table row takes about 16 + 8 (parts + tasks) bytes, and twice as much while blocks are merged.

    Args:
        num_parts: parts counted apart.
        num_tasks: labels.
        limit: distinct ids held; above it numbers are estimates.

    Example:
        >>> counts = IdCounts(num_parts=1, num_tasks=0, limit=100)
        >>> counts.add(0, pl.Series([7, 7, 9]), np.zeros((3, 0)))
        >>> counts.table().counts[:, 0]
        array([2, 1])
    """

    def __init__(self, *, num_parts: int, num_tasks: int, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"IdCounts: limit={limit} leaves no room for an id. Give at least 1.")
        self._limit = limit
        self._counts = [f"count_{part}" for part in range(num_parts)]
        self._positives = [f"positive_{task}" for task in range(num_tasks)]
        self._table: pl.DataFrame | None = None
        self._pending: list[pl.DataFrame] = []
        self._num_pending = 0
        self._theta = 1.0
        self._bound = 0
        self.occurrences = np.zeros(num_parts, np.int64)

    @property
    def exact(self) -> bool:
        """Whether every id was kept so far (blocks not yet merged not regarded)."""
        return self._theta == 1.0

    def add(self, part: int, tokens: pl.Series, labels: np.ndarray) -> None:
        """Count the ids of a block.

        Args:
            part: which part they are of.
            tokens: [n], integers, floats or strings, of one kind in all blocks.
            labels: float [n, tasks], the labels of each id's row; NaN counts as 0.
        """
        if not len(tokens):
            return
        self.occurrences[part] += len(tokens)
        # blocks differ in the width of integers, and tables of one dtype are needed to merge
        columns = {"token": (tokens.cast(pl.Int64) if tokens.dtype.is_integer() else tokens).rename("token")}
        for task, name in enumerate(self._positives):
            columns[name] = pl.Series(name, labels[:, task] == 1)
        sums = [pl.col(name).sum() for name in self._positives]
        counted = pl.DataFrame(columns).group_by("token").agg(pl.len(), *sums)
        counted = counted.select(
            "token",
            *(pl.col("len").cast(pl.Int64).mul(int(place == part)).alias(n) for place, n in enumerate(self._counts)),
            *(pl.col(name).cast(pl.Int64) for name in self._positives),
            # occurrences before it was dropped: only ids of the sample remember them
            pl.lit(0, pl.Int64).alias("forgotten"),
            # before it entered
            pl.lit(self._bound, pl.Int64).alias("missed"),
        )
        self._pending.append(counted)
        self._num_pending += counted.height
        table_rows = 0 if self._table is None else self._table.height
        if self._num_pending > max(min(_MIN_PENDING_IDS, self._limit), table_rows // 2):
            self._merge()

    def table(self) -> CountTable:
        """What was counted, most frequent first; ties in order of the ids."""
        self._merge()
        table = self._table
        if table is None:
            shape = (0, len(self._counts)), (0, len(self._positives))
            empty = np.zeros(0)
            return CountTable(
                tokens=pl.Series("token", [], pl.Int64),
                counts=np.zeros(shape[0], np.int64),
                positives=np.zeros(shape[1], np.int64),
                undercounts=empty.astype(np.int64),
                weights=empty,
                sample=empty.astype(bool),
                theta=1.0,
            )
        total = pl.sum_horizontal(self._counts)
        table = table.with_columns(total.alias("total")).sort(["total", "token"], descending=[True, False])
        sample = _hash_fraction(table["token"]) < self._theta
        heavy = (table["total"] - table["forgotten"]).to_numpy() > self._bound
        # lighter ids outside the sample are stood for by those inside
        stays = pl.Series(heavy | sample)
        weights = np.where(heavy | self.exact, 1.0, 1.0 / self._theta)
        undercounts = np.where(sample, 0, table["missed"].to_numpy())
        table = table.filter(stays)
        return CountTable(
            tokens=table["token"],
            counts=_matrix(table, self._counts),
            positives=_matrix(table, self._positives),
            undercounts=undercounts[stays.to_numpy()],
            weights=weights[stays.to_numpy()],
            sample=sample[stays.to_numpy()],
            theta=self._theta,
        )

    def _merge(self) -> None:
        if not self._pending:
            return
        frames = self._pending if self._table is None else [self._table, *self._pending]
        self._pending, self._num_pending = [], 0
        summed = pl.col(*self._counts, *self._positives).sum()
        # what an id of the table missed is never more than the present bound, which the blocks have
        memory = pl.col("forgotten").max(), pl.col("missed").min()
        self._table = pl.concat(frames).group_by("token").agg(summed, *memory)
        if self._table.height > self._limit:
            self._table = self._pruned(self._table)

    def _pruned(self, table: pl.DataFrame) -> pl.DataFrame:
        hashes = _hash_fraction(table["token"])
        while np.count_nonzero(hashes < self._theta) > self._limit // 2:
            self._theta /= 2.0
        sample = hashes < self._theta
        total = table.select(pl.sum_horizontal(self._counts)).to_series().to_numpy()
        at_most = total - table["forgotten"].to_numpy() + table["missed"].to_numpy()
        room = self._limit // 4
        others = np.sort(at_most[~sample])
        if len(others) <= room:
            return table
        self._bound = max(self._bound, int(others[len(others) - room - 1]))
        heavy = at_most > self._bound
        return table.with_columns(
            pl.Series("forgotten", np.where(heavy, table["forgotten"].to_numpy(), total)),
            pl.Series("missed", np.where(heavy, table["missed"].to_numpy(), self._bound)),
        ).filter(pl.Series(sample | heavy))


def _matrix(table: pl.DataFrame, names: list[str]) -> np.ndarray:
    if not names:
        return np.zeros((table.height, 0), np.int64)
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def _hash_fraction(tokens: pl.Series) -> np.ndarray:
    """float64 [n] in [0, 1), the same for the same token."""
    x = tokens.hash(_HASH_SEED).to_numpy().astype(np.uint64)
    for shift, factor in _MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    # 53 bits: more would round up to 1
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


_NUM_TOP = 10
_CURVE_POINTS = 60


class IdTally:
    """What is known of every row of a categorical column.

    Args:
        num_parts: parts counted apart.
        num_tasks: labels.
        max_distinct: distinct ids counted exactly.
    """

    def __init__(self, num_parts: int, num_tasks: int, max_distinct: int) -> None:
        self.counts = IdCounts(num_parts=num_parts, num_tasks=num_tasks, limit=max_distinct)
        self._rows = self._empty = 0
        self._shortest: int | None = None
        self._longest = 0

    def add(self, part: int, tokens: Tokens, empty: np.ndarray, labels: np.ndarray) -> None:
        """Take in a block.

        Args:
            part: number of the part.
            tokens: ids of N rows.
            empty: bool [N].
            labels: float32 [N, tasks].
        """
        self._rows += len(empty)
        self._empty += int(np.count_nonzero(empty))
        if tokens.lengths is not None:
            labels = np.repeat(labels, tokens.lengths, axis=0)
            if len(tokens.lengths):
                low, high = int(tokens.lengths.min()), int(tokens.lengths.max())
                self._shortest = low if self._shortest is None else min(self._shortest, low)
                self._longest = max(self._longest, high)
        self.counts.add(part, tokens.values, labels)

    def stats(self, name: str, table: CountTable, names: Callable[[list[object]], list[str]]) -> IdStats:
        """The statistics.

        Args:
            name: the column.
            table: of `counts`.
            names: how ids are written.
        """
        occurrences = int(self.counts.occurrences.sum())
        totals = table.totals
        bags = None
        if self._shortest is not None:
            bags = (self._shortest, occurrences / self._rows, self._longest)
        return IdStats(
            name=name,
            missing_rate=self._empty / self._rows if self._rows else None,
            occurrences=occurrences,
            distinct=table.distinct,
            exact=table.exact,
            relative_error=table.relative_error,
            top=_top(table, totals, occurrences, names),
            top_1_share=head_share(table, occurrences, 0.01),
            top_10_share=head_share(table, occurrences, 0.10),
            once_ids=table.once / table.distinct if table.distinct else None,
            once_share=table.once / occurrences if occurrences else None,
            curve=_curve(table, totals),
            bag_length=bags,
        )


def head_share(table: CountTable, occurrences: int, fraction: float) -> float | None:
    """Occurrences of the most frequent ids / all.

    Args:
        table: ids in falling order of count.
        occurrences: of all ids.
        fraction: of the distinct ids, rounded up to whole ones.
    """
    if not occurrences:
        return None
    # 0.1 * 30 is a little above 3 in binary
    num_ids = math.ceil(round(fraction * table.distinct, 6))
    before = np.cumsum(table.weights) - table.weights
    taken = np.clip(num_ids - before, 0.0, table.weights)
    return min(1.0, float((taken * table.totals).sum()) / occurrences)


def _top(
    table: CountTable, totals: np.ndarray, occurrences: int, names: Callable[[list[object]], list[str]]
) -> tuple[TopValue, ...]:
    ids = table.tokens[:_NUM_TOP].to_list()
    return tuple(
        TopValue(value=value, count=count, share=count / occurrences, undercount=undercount)
        for value, count, undercount in zip(
            names(ids), totals[:_NUM_TOP].tolist(), table.undercounts[:_NUM_TOP].tolist(), strict=True
        )
    )


def _curve(table: CountTable, totals: np.ndarray) -> tuple[tuple[int, int], ...]:
    if not len(totals):
        return ()
    ends = np.cumsum(table.weights)
    ranks = np.unique(np.geomspace(1, max(1, table.distinct), _CURVE_POINTS).round().astype(np.int64))
    places = np.minimum(np.searchsorted(ends, ranks - 0.5), len(totals) - 1)
    return tuple(zip(ranks.tolist(), totals[places].tolist(), strict=True))
