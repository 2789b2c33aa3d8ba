"""Synthetic rows in Criteo's shape: power-law ids, log-normal integers, and labels drawn from a planted `Teacher`.

Rows are made in blocks of a fixed size, and block k depends on (configuration, k) alone: any part of any size can
be made at any time, in any order, in memory of a few blocks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tfdlrm.config.data import DataConfig, SyntheticConfig
from tfdlrm.data.columns import ROW_ID, Columns, concatenate
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.power_law import PowerLaw
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.splits import Splits, time_split
from tfdlrm.data.streaming import StreamingDataset
from tfdlrm.data.teacher import Teacher, expected_auc, expected_log_loss
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

TEACHER_PROBABILITY = "teacher_probability"

# Rows drawn together: their arrays fit the second-level cache. Changing it changes the rows of a seed.
SEED_BLOCK_ROWS = 2**14
_STREAM_BLOCK_ROWS = 4 * SEED_BLOCK_ROWS

# First word of the seed of each kind of random stream.
_TEACHER_STREAM, _CALIBRATION_STREAM, _ROW_STREAM = 0, 1, 2
_CALIBRATION_ROWS = 2**16

# Dense columns take one of so many equally likely values: drawing is then one table look-up.
_NUM_QUANTILES = 2**16


def synthetic_feature_spec(config: SyntheticConfig) -> FeatureSpec:
    """`label`; `int_1`...: log1p; `cat_1`...: integer ids, a table each; the key `teacher_probability`."""
    names = [f"cat_{i}" for i in range(1, len(config.vocabulary_sizes) + 1)]
    return FeatureSpec(
        labels=("label",),
        dense=tuple(DenseColumn(name=f"int_{i}", transform="log1p") for i in range(1, config.num_dense + 1)),
        categorical=tuple(
            CategoricalColumn(name=name, hotness=hotness)
            for name, hotness in zip(names, config.hotness_per_feature, strict=True)
        ),
        keys=(TEACHER_PROBABILITY,),
        vocabulary_sizes=dict(zip(names, config.vocabulary_sizes, strict=True)),
    )


class SyntheticRows:
    """Rows [start, stop) of a synthetic dataset; a `BlockSource`.

    An empty dense cell (`missing_fraction`) reads as 0, an empty categorical cell as id 0.

    Args:
        config: what to draw.
        start, stop: which rows; None for the end.
    """

    block_rows = _STREAM_BLOCK_ROWS

    def __init__(self, config: SyntheticConfig, start: int = 0, stop: int | None = None) -> None:
        self.spec = synthetic_feature_spec(config)
        self._config = config
        self._start = start
        self._stop = config.num_rows if stop is None else stop
        self.num_rows = self._stop - start
        # Tables of equal size draw from one law.
        laws = {size: PowerLaw(size, config.power_law_exponent) for size in set(config.vocabulary_sizes)}
        self._laws = [laws[size] for size in config.vocabulary_sizes]
        generator = _generator(config.seed, _TEACHER_STREAM, 0)
        self._quantiles = _dense_quantiles(config.num_dense, generator)
        self._teacher = Teacher(self._laws, self._quantiles.std(axis=1), config.teacher_dim, generator)
        sample = _generator(config.seed, _CALIBRATION_STREAM, 0)
        ids, dense = self._draw_inputs(sample, _CALIBRATION_ROWS)
        self._teacher.calibrate(ids, dense, config.teacher_scale, config.positive_rate)

    def read_block(self, block: int) -> Columns:
        """See `BlockSource`."""
        start = self._start + block * self.block_rows
        stop = min(start + self.block_rows, self._stop)
        parts = []
        for seed_block in range(start // SEED_BLOCK_ROWS, -(-stop // SEED_BLOCK_ROWS)):
            first = seed_block * SEED_BLOCK_ROWS
            rows = self._draw_rows(seed_block)
            parts.append(rows.slice(max(start - first, 0), min(stop - first, SEED_BLOCK_ROWS)))
        return concatenate(parts)

    def _draw_rows(self, seed_block: int) -> Columns:
        generator = _generator(self._config.seed, _ROW_STREAM, seed_block)
        ids, dense = self._draw_inputs(generator, SEED_BLOCK_ROWS)
        probability = self._teacher.probability(ids, dense)
        labels = (generator.random(SEED_BLOCK_ROWS, dtype=np.float32) < probability).astype(np.float32)
        first = seed_block * SEED_BLOCK_ROWS
        return Columns(
            dense=np.ascontiguousarray(dense.T),
            labels=labels[:, None],
            ids=np.concatenate(ids, axis=1) if len(ids) > 1 else ids[0],
            weights=np.zeros((SEED_BLOCK_ROWS, 0), np.float32),
            keys={TEACHER_PROBABILITY: probability, ROW_ID: np.arange(first, first + SEED_BLOCK_ROWS)},
        )

    def _draw_inputs(self, generator: np.random.Generator, num_rows: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Ids by feature, [n, H], and transformed dense columns, [num_dense, n]."""
        missing = self._config.missing_fraction
        ids = []
        for law, hotness in zip(self._laws, self._config.hotness_per_feature, strict=True):
            bags = law.draw(generator, num_rows * hotness).reshape(num_rows, hotness)
            if missing:
                bags[generator.random(num_rows, dtype=np.float32) < missing] = 0
            ids.append(bags)
        dense = np.empty((self._config.num_dense, num_rows), np.float32)
        for column in range(self._config.num_dense):
            picks = generator.integers(0, _NUM_QUANTILES, num_rows, dtype=np.uint16)
            np.take(self._quantiles[column], picks, out=dense[column])
            if missing:
                dense[column, generator.random(num_rows, dtype=np.float32) < missing] = 0.0
        return ids, dense


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
    return np.array([normal.inv_cdf((i + 0.5) / _NUM_QUANTILES) for i in range(_NUM_QUANTILES)])


def synthetic_dataset(config: SyntheticConfig, start: int = 0, stop: int | None = None) -> StreamingDataset:
    """Rows [start, stop) as a dataset.

    Example:
        >>> synthetic_dataset(SyntheticConfig(num_rows=1000, vocabulary_sizes=(10, 20))).num_rows
        1000
    """
    return StreamingDataset(SyntheticRows(config, start, stop))


def open_synthetic(config: DataConfig) -> Splits:
    """The parts of a synthetic dataset: all rows for training, or contiguous parts by the fractions.

    Raises:
        ValueError: `synthetic` is missing, an option means nothing here, or the training part is empty.
    """
    if config.synthetic is None:
        raise ValueError(
            "DataConfig: format='synthetic' needs data.synthetic (num_rows, vocabulary_sizes, ...). Give it."
        )
    if config.schema is not None or config.id_modulo is not None:
        raise ValueError("DataConfig: schema and id_modulo have no meaning with format='synthetic'. Remove them.")
    num_rows = min(config.synthetic.num_rows, config.max_rows or config.synthetic.num_rows)
    bounds = [slice(0, num_rows)]
    if config.split != "none":
        bounds = list(time_split(num_rows, config.train_fraction, config.validation_fraction))
    parts: list[Dataset | None] = [
        synthetic_dataset(config.synthetic, part.start, part.stop) if part.stop > part.start else None
        for part in bounds
    ]
    parts += [None] * (3 - len(parts))
    train, validation, test = parts
    if train is None:
        raise ValueError(
            f"DataConfig: the training part of {num_rows} rows is empty. Raise num_rows or train_fraction."
        )
    return Splits(
        train=train,
        validation=validation,
        test=test,
        preprocessing=Preprocessing(spec=train.spec),
        books=Books(read=num_rows, used=num_rows, set_aside=0),
    )


@dataclass(frozen=True, kw_only=True)
class BestPossible:
    """What the teacher itself scores: no model can expect to do better.

    Args:
        labels: float32 [n], of the rows.
        probability: float32 [n], the true one.
        expected_auc, expected_log_loss: over all labels these probabilities could give.
    """

    labels: np.ndarray
    probability: np.ndarray
    expected_auc: float
    expected_log_loss: float


def best_possible(dataset: Dataset) -> BestPossible | None:
    """The teacher's scores of a synthetic dataset; None for any other.

    AUC and log loss on the very labels follow from `labels` and `probability` with any metric.
    """
    if not isinstance(dataset, StreamingDataset) or not isinstance(dataset.source, SyntheticRows):
        return None
    blocks = [dataset.source.read_block(block) for block in range(dataset.num_blocks)]
    probability = np.concatenate([block.keys[TEACHER_PROBABILITY] for block in blocks])
    return BestPossible(
        labels=np.concatenate([block.labels[:, 0] for block in blocks]),
        probability=probability,
        expected_auc=expected_auc(probability),
        expected_log_loss=expected_log_loss(probability),
    )
