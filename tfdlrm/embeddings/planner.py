"""From logical tables to stored ones, and from stored tables to stacks.

A *logical* table is what the user names. A *stored* table is one array of rows: quotient-remainder stores two
for one logical table. A *stack* is one variable that holds several stored tables of the same width, optimizer
and options one below the other, so that one gather and one update serve all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from tfdlrm.checks import quoted
from tfdlrm.config import TableConfig
from tfdlrm.embeddings.initializers import Initializer, Uniform
from tfdlrm.embeddings.optimizers import RowOptimizer

QUOTIENT = "/quotient"
REMAINDER = "/remainder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTable:
    """One array of rows, `[vocabulary_size, embedding_dim]`, under its checkpoint name."""

    name: str
    vocabulary_size: int
    embedding_dim: int
    initializer: Initializer
    optimizer: RowOptimizer
    pooling_weights: str | None = None
    trainable: bool = True
    row_dtype: str = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stack:
    """Stored tables that share one variable; row r of table k is row `offsets[k] + r` of the stack."""

    name: str
    tables: tuple[StoredTable, ...]
    offsets: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return self.offsets[-1] + self.tables[-1].vocabulary_size

    @property
    def embedding_dim(self) -> int:
        return self.tables[0].embedding_dim

    @property
    def optimizer(self) -> RowOptimizer:
        return self.tables[0].optimizer

    @property
    def pooling_weights(self) -> str | None:
        return self.tables[0].pooling_weights

    @property
    def trainable(self) -> bool:
        return self.tables[0].trainable

    @property
    def row_dtype(self) -> str:
        return self.tables[0].row_dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingPlan:
    """Where every stored table lives, and why.

    Example:
        >>> for line in plan.reasons: print(line)
        stack_0: 26 tables of width 16 fused, 33762577 rows (same width, optimizer and options)
    """

    stacks: tuple[Stack, ...]
    reasons: tuple[str, ...]

    def locate(self, table: str) -> tuple[int, int]:
        """Index of the stack that holds a stored table, and the table's row offset in it."""
        for index, stack in enumerate(self.stacks):
            for stored, offset in zip(stack.tables, stack.offsets, strict=True):
                if stored.name == table:
                    return index, offset
        raise KeyError(f"table {quoted(table)} is not in the plan.")


def stored_tables(table: TableConfig, default_optimizer: RowOptimizer) -> tuple[StoredTable, ...]:
    """The arrays that a logical table is stored as: one, or quotient and remainder."""
    optimizer = table.optimizer or default_optimizer
    compression = table.split
    if compression is None:
        return (
            StoredTable(
                name=table.name,
                vocabulary_size=table.vocabulary_size,
                embedding_dim=table.embedding_dim,
                initializer=table.initializer,
                optimizer=optimizer,
                pooling_weights=table.pooling_weights,
                trainable=table.trainable,
                row_dtype=table.row_dtype,
            ),
        )
    bound = math.sqrt(1.0 / table.vocabulary_size)
    reference = compression.initializer == "reference"
    initializer = Uniform(low=bound, high=1.0) if reference else Uniform(low=-bound, high=bound)
    rows = {
        QUOTIENT: -(-table.vocabulary_size // compression.collisions),
        REMAINDER: compression.collisions,
    }
    return tuple(
        StoredTable(
            name=table.name + suffix,
            vocabulary_size=num_rows,
            embedding_dim=table.stored_dim,
            initializer=initializer,
            optimizer=optimizer,
            trainable=table.trainable,
            row_dtype=table.row_dtype,
        )
        for suffix, num_rows in rows.items()
    )


def plan_local(tables: Iterable[StoredTable]) -> ShardingPlan:
    """Everything on one device; tables alike in width, optimizer and options are fused into one stack.

    A table with a `clipnorm` of its own keeps its own stack, because the norm is the table's.
    """
    groups: dict[object, list[StoredTable]] = {}
    for table in tables:
        alone = table.name if table.optimizer.clipnorm is not None else None
        key = (
            table.embedding_dim,
            table.optimizer,
            table.pooling_weights,
            table.trainable,
            table.row_dtype,
            alone,
        )
        groups.setdefault(key, []).append(table)
    stacks, reasons = [], []
    for index, members in enumerate(groups.values()):
        stack = Stack(name=f"stack_{index}", tables=tuple(members), offsets=stack_offsets(members))
        stacks.append(stack)
        why = "same width, optimizer and options" if len(members) > 1 else "no other table shares its width and options"
        reasons.append(
            f"{stack.name}: {len(members)} table{'s' if len(members) > 1 else ''} of width {stack.embedding_dim} "
            f"fused, {stack.num_rows} rows ({why})"
        )
    return ShardingPlan(stacks=tuple(stacks), reasons=tuple(reasons))


def stack_offsets(tables: Sequence[StoredTable]) -> tuple[int, ...]:
    """The row at which each table of a stack begins."""
    offsets, total = [], 0
    for table in tables:
        offsets.append(total)
        total += table.vocabulary_size
    return tuple(offsets)
