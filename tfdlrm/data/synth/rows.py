"""SyntheticRows: any part of a synthetic dataset at any time, in memory of a few blocks.

Rows are made in blocks of a fixed size, and block k depends on (configuration, k) alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from tfdlrm.config.data import SyntheticConfig
from tfdlrm.data.columns import Columns, RaggedColumn, concatenate, id_dtype
from tfdlrm.data.power_law import PowerLaw
from tfdlrm.data.splitmix import below, key, mix
from tfdlrm.data.synth.draws import NUM_QUANTILES, DayBounds, Inputs, TableDays, draw_inputs
from tfdlrm.data.teacher import Bags, Teacher
from tfdlrm.schema import ROW_ID, CategoricalColumn, DenseColumn, FeatureSpec


def multi_hot(ids: np.ndarray, hotness: int, vocabulary_size: int, *, table: int, seed: int = 0) -> np.ndarray:
    """The bags of one-hot ids.

    The first id of a bag is the original one; the others are uniform in [0, V), each drawn for itself, so that an id
    may be twice in a bag.

    Args:
        ids: integer [n], in [0, V).
        hotness: h, ids a bag.
        vocabulary_size: V.
        table: number of the table; tables draw independently.
        seed: of all tables.

    Returns:
        [n, h], dtype of `ids`.

    Raises:
        ValueError: a size is below 1, ids are not integers, or one is outside [0, V).

    Example:
        >>> bags = multi_hot(np.array([7, 1, 7]), 3, 100, table=0)
        >>> bags.shape, bags[:, 0].tolist(), bool((bags[0] == bags[2]).all())
        ((3, 3), [7, 1, 7], True)
    """
    if hotness < 1 or vocabulary_size < 1:
        raise ValueError(
            f"multi_hot: table {table} has hotness={hotness} and vocabulary_size={vocabulary_size}. "
            "Give 1 or more of each."
        )
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"multi_hot: ids of table {table} have dtype {ids.dtype} and shape {ids.shape}. Give integers [n]."
        )
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        raise ValueError(
            f"multi_hot: ids of table {table} are from {ids.min()} to {ids.max()}, not within [0, {vocabulary_size}). "
            "Take them modulo the table's rows, or give its right size."
        )
    bags = np.empty((len(ids), hotness), ids.dtype)
    bags[:, 0] = ids
    state = mix(ids.astype(np.uint64) ^ key(seed, table))
    for place in range(1, hotness):
        bags[:, place] = below(mix(state + np.uint64(place)), vocabulary_size)
    return bags


def multi_hot_columns(
    ids: np.ndarray, hotness: Sequence[int], vocabulary_sizes: Sequence[int], *, seed: int = 0
) -> np.ndarray:
    """The bags of all tables side by side, as `Columns.ids` holds them.

    Args:
        ids: integer [n, tables].
        hotness, vocabulary_sizes: of each table.
        seed: of all tables.

    Returns:
        [n, sum of hotness], dtype of `ids`.

    Raises:
        ValueError: numbers of tables differ; see also `multi_hot`.
    """
    if not ids.ndim == 2 or not ids.shape[1] == len(hotness) == len(vocabulary_sizes):
        raise ValueError(
            f"multi_hot_columns: ids have shape {ids.shape} for {len(hotness)} hotness and {len(vocabulary_sizes)} "
            "vocabulary_sizes. Give a column, a hotness and a size for each table."
        )
    shapes = enumerate(zip(hotness, vocabulary_sizes, strict=True))
    bags = [multi_hot(ids[:, table], h, size, table=table, seed=seed) for table, (h, size) in shapes]
    return np.concatenate(bags, axis=1)


TEACHER_PROBABILITY = "teacher_probability"
DAY = "day"

# Rows drawn together: their arrays fit the second-level cache. Changing it changes the rows of a seed.
SEED_BLOCK_ROWS = 2**14
STREAM_BLOCK_ROWS = 4 * SEED_BLOCK_ROWS

# First word of the seed of each kind of random stream.
_TEACHER_STREAM, _CALIBRATION_STREAM, _ROW_STREAM, _FOLLOW_STREAM, _COLD_STREAM, _DRIFT_STREAM = range(6)
_CALIBRATION_ROWS = 2**16


def synthetic_feature_spec(config: SyntheticConfig) -> FeatureSpec:
    """`label`; `int_1`...: log1p; `cat_1`...: integer ids, a table each; the key `teacher_probability`.

    With two days or more there is a second key, `day`, from 0.
    """
    names = [f"cat_{i}" for i in range(1, len(config.vocabulary_sizes) + 1)]
    shapes = zip(names, config.hotness_per_feature, config.ragged_per_feature, strict=True)
    return FeatureSpec(
        labels=("label",),
        dense=tuple(DenseColumn(name=f"int_{i}", transform="log1p") for i in range(1, config.num_dense + 1)),
        categorical=tuple(
            CategoricalColumn(name=name, hotness=None if ragged else hotness) for name, hotness, ragged in shapes
        ),
        keys=(TEACHER_PROBABILITY, DAY) if config.days > 1 else (TEACHER_PROBABILITY,),
        vocabulary_sizes=dict(zip(names, config.vocabulary_sizes, strict=True)),
    )


@dataclass(frozen=True, kw_only=True)
class EmptyCells:
    """Which cells of n rows are empty in a raw file.

    Args:
        dense: bool [n, num_dense].
        categorical: bool [n, categorical columns].
    """

    dense: np.ndarray
    categorical: np.ndarray


class SyntheticRows:
    """Rows [start, stop) of a synthetic dataset; a `BlockSource`.

    An empty dense cell (`missing_fraction`) reads as 0; an empty categorical cell as id 0, or as no id where the
    number of ids varies.

    Args:
        config: what to draw.
        start, stop: which rows; None for the end.
    """

    block_rows = STREAM_BLOCK_ROWS
    shuffle_blocks = 4  # that are shuffled together; another number is another order

    def __init__(self, config: SyntheticConfig, start: int = 0, stop: int | None = None) -> None:
        self.spec = synthetic_feature_spec(config)
        self.days = DayBounds(config.num_rows, config.days)
        self._config = config
        self._start = start
        self._stop = config.num_rows if stop is None else stop
        self.num_rows = self._stop - start
        has_cold = config.cold_fraction > 0
        self._tables = [TableDays(size, config.days, config.drift, has_cold) for size in config.vocabulary_sizes]
        # Tables of equal size draw from one law.
        sizes = [table.num_warm for table in self._tables]
        laws = {size: PowerLaw(size, config.power_law_exponent) for size in set(sizes)}
        self._laws = [laws[size] for size in sizes]
        generator = _generator(config.seed, _TEACHER_STREAM, 0)
        self._quantiles = _dense_quantiles(config.num_dense, generator)
        self._teacher = Teacher(self._laws, self._quantiles.std(axis=1), config.teacher_dim, generator)
        self._calibrate(self._teacher)
        # of each day; those of later days are made when they are asked for
        self._teachers = [self._teacher]
        self._teachers_lock = threading.Lock()

    @property
    def largest_count(self) -> int:
        """No raw integer is larger."""
        return int(np.rint(np.expm1(self._quantiles.max(initial=0.0))))

    def read_block(self, block: int) -> Columns:
        """See `BlockSource`."""
        start = self._start + block * self.block_rows
        return self.read(start, min(start + self.block_rows, self._stop))[0]

    def read_blocks(self, blocks: Sequence[int], *, keys: bool = True) -> Columns:
        """See `BlockSource`."""
        rows = concatenate([self.read_block(block) for block in blocks])
        return rows if keys else replace(rows, keys={})

    def read(self, start: int, stop: int) -> tuple[Columns, EmptyCells | None]:
        """Rows [start, stop) of the whole dataset, and which of their cells are empty, if any may be."""
        parts, empty = [], []
        for seed_block in range(start // SEED_BLOCK_ROWS, -(-stop // SEED_BLOCK_ROWS)):
            first = seed_block * SEED_BLOCK_ROWS
            low, high = max(start - first, 0), min(stop - first, SEED_BLOCK_ROWS)
            rows, cells = self._draw_rows(seed_block)
            parts.append(rows.slice(low, high))
            if cells is not None:
                empty.append(EmptyCells(dense=cells.dense[low:high], categorical=cells.categorical[low:high]))
        if not empty:
            return concatenate(parts), None
        return concatenate(parts), EmptyCells(
            dense=np.concatenate([cells.dense for cells in empty]),
            categorical=np.concatenate([cells.categorical for cells in empty]),
        )

    def _draw_rows(self, seed_block: int) -> tuple[Columns, EmptyCells | None]:
        config, first = self._config, seed_block * SEED_BLOCK_ROWS
        generator = _generator(config.seed, _ROW_STREAM, seed_block)
        inputs = draw_inputs(
            config,
            self._laws,
            self._quantiles,
            generator,
            _generator(config.seed, _FOLLOW_STREAM, seed_block),
            SEED_BLOCK_ROWS,
        )
        keys: dict[str, np.ndarray] = {}
        if config.days == 1:
            bags = inputs.bags
            probability = self._teacher.probability(bags, inputs.dense)
        else:
            bags, probability, keys[DAY] = self._over_days(inputs, seed_block)
        labels = (generator.random(SEED_BLOCK_ROWS, dtype=np.float32) < probability).astype(np.float32)
        columns = Columns(
            dense=np.ascontiguousarray(inputs.dense.T),
            labels=labels[:, None],
            ids=self._stacked(bags),
            weights=np.zeros((SEED_BLOCK_ROWS, 0), np.float32),
            ragged={
                column.name: RaggedColumn(
                    values=bag.values.astype(id_dtype(self.spec), copy=False), row_splits=bag.row_splits
                )
                for column, bag in zip(self.spec.categorical, bags, strict=True)
                if isinstance(bag, RaggedColumn)
            },
            keys={TEACHER_PROBABILITY: probability, **keys, ROW_ID: np.arange(first, first + SEED_BLOCK_ROWS)},
        )
        if inputs.empty_bags is None or inputs.empty_dense is None:
            return columns, None
        return columns, EmptyCells(dense=inputs.empty_dense.T, categorical=np.stack(inputs.empty_bags, axis=1))

    def _stacked(self, bags: list[Bags]) -> np.ndarray:
        fixed = [bag for bag in bags if not isinstance(bag, RaggedColumn)]
        if not fixed:
            return np.zeros((SEED_BLOCK_ROWS, 0), id_dtype(self.spec))
        return np.concatenate(fixed, axis=1) if len(fixed) > 1 else fixed[0]

    def _over_days(self, inputs: Inputs, seed_block: int) -> tuple[list[Bags], np.ndarray, np.ndarray]:
        """Ids by column, the teacher's probability and the day of the rows of a block."""
        first = seed_block * SEED_BLOCK_ROWS
        parts = list(self.days.parts(first, first + SEED_BLOCK_ROWS))
        days = np.concatenate([np.full(rows.stop - rows.start, day) for day, rows in parts])
        generator = _generator(self._config.seed, _COLD_STREAM, seed_block)
        bags: list[Bags] = []
        ranks: list[Bags] = []
        for column, bag in enumerate(inputs.bags):
            ids, seen = self._ids_of_days(column, inputs, days, parts, generator)
            if isinstance(bag, RaggedColumn):
                bags.append(RaggedColumn(values=ids, row_splits=bag.row_splits))
                ranks.append(RaggedColumn(values=seen, row_splits=bag.row_splits))
            else:
                bags.append(ids.reshape(bag.shape))
                ranks.append(seen.reshape(bag.shape))
        probability = np.empty(SEED_BLOCK_ROWS, np.float32)
        for day, rows in parts:
            part = [bag.slice(rows.start, rows.stop) if isinstance(bag, RaggedColumn) else bag[rows] for bag in ranks]
            probability[rows] = self._teacher_of(day).probability(part, inputs.dense[:, rows])
        return bags, probability, days

    def _ids_of_days(
        self,
        column: int,
        inputs: Inputs,
        days: np.ndarray,
        parts: list[tuple[int, slice]],
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of one column, one bag after another, and their ranks; a cold id has a rank without effect."""
        table, bag = self._tables[column], inputs.bags[column]
        if isinstance(bag, RaggedColumn):
            values, splits, empty = bag.values, bag.row_splits, None
        else:
            hotness = bag.shape[1]
            values, splits = bag.reshape(-1), np.arange(len(bag) + 1) * hotness
            empty = None if inputs.empty_bags is None else np.repeat(inputs.empty_bags[column], hotness)
        ids = np.concatenate([table.ids(values[splits[rows.start] : splits[rows.stop]], day) for day, rows in parts])
        cold = np.zeros(len(values), bool)
        if table.pool_size:
            day_of_value = np.repeat(days, np.diff(splits))
            cold = (generator.random(len(values), dtype=np.float32) < self._config.cold_fraction) & (day_of_value > 0)
            places = generator.integers(0, table.pool_size, int(cold.sum()))
            ids[cold] = table.pool(1)[0] + (day_of_value[cold] - 1) * table.pool_size + places
        seen = np.where(cold, ids, values)
        if empty is not None:
            ids[empty], seen[empty] = 0, 0
        return ids, seen

    def _teacher_of(self, day: int) -> Teacher:
        """The calibrated teacher of a day; without drift there is one. About 2 MB a day are kept."""
        if not self._config.drift:
            return self._teacher
        with self._teachers_lock:
            for number in range(len(self._teachers), day + 1):
                generator = _generator(self._config.seed, _DRIFT_STREAM, number)
                steps = [table.step for table in self._tables]
                teacher = self._teachers[-1].next_day(generator, self._config.drift, steps)
                self._calibrate(teacher)
                self._teachers.append(teacher)
            return self._teachers[day]

    def _calibrate(self, teacher: Teacher) -> None:
        sample = draw_inputs(
            self._config,
            self._laws,
            self._quantiles,
            _generator(self._config.seed, _CALIBRATION_STREAM, 0),
            _generator(self._config.seed, _CALIBRATION_STREAM, 1),
            _CALIBRATION_ROWS,
        )
        teacher.calibrate(sample.bags, sample.dense, self._config.teacher_scale, self._config.positive_rate)


def _generator(seed: int, stream: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([seed, stream, block]))


def _dense_quantiles(num_dense: int, generator: np.random.Generator) -> np.ndarray:
    """float32 [num_dense, quantiles]: ln(floor(x) + 1) of log-normal x, each column with its own location and width."""
    location = generator.uniform(0.0, 4.0, (num_dense, 1))
    width = generator.uniform(0.7, 1.7, (num_dense, 1))
    counts = np.floor(np.exp(location + width * _normal_quantiles()))
    return np.log1p(counts).astype(np.float32)


@functools.cache
def _normal_quantiles() -> np.ndarray:
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / NUM_QUANTILES) for i in range(NUM_QUANTILES)])
