"""Synthetic rows in Criteo's shape: power-law ids, log-normal integers, and labels drawn from a planted `Teacher`.

Any part of any size can be made at any time, in any order, in memory of a few blocks: see `tfdlrm.data.synth.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdlrm.config.data import DataConfig, SyntheticConfig
from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.splits import Splits, time_split
from tfdlrm.data.streaming import StreamingDataset
from tfdlrm.data.synth.rows import SEED_BLOCK_ROWS, TEACHER_PROBABILITY, SyntheticRows, synthetic_feature_spec
from tfdlrm.data.teacher import expected_auc, expected_log_loss

__all__ = [
    "SEED_BLOCK_ROWS",
    "TEACHER_PROBABILITY",
    "BestPossible",
    "SyntheticRows",
    "best_possible",
    "open_synthetic",
    "synthetic_dataset",
    "synthetic_feature_spec",
]


def synthetic_dataset(config: SyntheticConfig, start: int = 0, stop: int | None = None) -> StreamingDataset:
    """Rows [start, stop) as a dataset.

    Example:
        >>> synthetic_dataset(SyntheticConfig(num_rows=1000, vocabulary_sizes=(10, 20))).num_rows
        1000
    """
    origin = {"format": "synthetic", "config": config.to_dict(), "start": start, "stop": stop}
    return StreamingDataset(SyntheticRows(config, start, stop), origin=origin)


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
