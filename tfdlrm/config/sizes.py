"""Sizes that go by the number of training rows, for the presets that take any data."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tfdlrm.config.experiment import ExperimentConfig

ANY_DATA = ("dlrm", "dcnv2")  # presets


class _Size(NamedTuple):
    batch: int
    epochs: int
    top_mlp: tuple[int, ...]


# Rows from which on -> sizes: the first two chosen by the validation AUC of tables of 2,000 to 200,000 rows
# (benchmarks/tabular.md), the others near those of the presets for Criteo and Avazu.
_SIZES = {
    0: _Size(128, 20, (64, 32, 1)),
    20_000: _Size(512, 20, (64, 32, 1)),
    1_000_000: _Size(2048, 2, (256, 128, 1)),
    10_000_000: _Size(8192, 1, (512, 256, 1)),
}


def sized(config: ExperimentConfig, num_rows: int) -> ExperimentConfig:
    """The config with batch size, epochs and top MLP for so many training rows; all else is kept.

    Args:
        config: of a preset of `ANY_DATA`, before anything of it is overridden.
        num_rows: of the training part.

    Example:
        >>> sized(preset("dlrm"), 40_000_000).train.global_batch_size
        8192
    """
    size = _SIZES[max(least for least in _SIZES if least <= num_rows)]
    train = replace(config.train, global_batch_size=size.batch, epochs=size.epochs)
    return replace(config, model=replace(config.model, top_mlp=size.top_mlp), train=train)
