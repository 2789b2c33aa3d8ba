"""How much of each embedding table was trained, and how long its rows are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.embeddings.initializers import BLOCK_ROWS, initial_rows, table_seed
from tfdlrm.embeddings.planner import StoredTable
from tfdlrm.embeddings.row_types import narrow, widen
from tfdlrm.embeddings.tables import EmbeddingTables
from tfdlrm.models.base import tables_of

_QUANTILES = (0.5, 0.99)


@dataclass(frozen=True, kw_only=True)
class TableUsage:
    """One stored table; a quotient-remainder table is two of them.

    Args:
        table: its name.
        rows, width: V and D.
        untrained: rows that are what they were before training.
        norm, norm_99: median and 99th percentile of the Euclidean norms of the others; 0 where there are none.
        norm_untrained: median of those of the untrained ones.
    """

    table: str
    rows: int
    width: int
    untrained: int
    norm: float
    norm_99: float
    norm_untrained: float


def table_usage(model: keras.Model) -> list[TableUsage]:
    """Of every stored table, in the order of the model. Costs the tables' size in time, and a block of it in memory."""
    return [
        _usage(tables, stored) for tables in tables_of(model) for stack in tables.plan.stacks for stored in stack.tables
    ]


def _usage(tables: EmbeddingTables, config: StoredTable) -> TableUsage:
    norms, trained = [], []
    for values, initial in _blocks(tables, config):
        same = tf.reduce_all(tf.equal(values, initial), axis=1)
        trained.append(~same.numpy())
        norms.append(tf.norm(values, axis=1).numpy())
    norm, is_trained = np.concatenate(norms), np.concatenate(trained)
    half, most = np.quantile(norm[is_trained], _QUANTILES) if is_trained.any() else (0.0, 0.0)
    rest = norm[~is_trained]
    return TableUsage(
        table=config.name,
        rows=config.vocabulary_size,
        width=config.embedding_dim,
        untrained=int(len(norm) - is_trained.sum()),
        norm=float(half),
        norm_99=float(most),
        norm_untrained=float(np.median(rest)) if len(rest) else 0.0,
    )


def _blocks(tables: EmbeddingTables, config: StoredTable) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Rows as they are, and as they were before training, block by block."""
    seed, total = table_seed(tables.seed, config.name), config.vocabulary_size
    for start in range(0, total, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, total)
        initial = initial_rows(config.initializer, seed, total, config.embedding_dim, start, stop)
        yield tables.rows(config.name, start, stop), widen(narrow(initial, config.row_dtype), config.row_dtype)
