"""Rows as an export holds them: parts of tables in variables of their own, read by stock ops, perhaps of fewer bits.

The engine looks rows up through a placement (docs/decisions/0001-engine-interface.md), so a model is exported by
tracing it with the one made here. Its variables are empty: `savedmodels.bundle` writes their values, chunk by chunk,
from the live tables into the files of the SavedModel, and no table is ever held a second time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from savedmodels.quantization import RowFormat, row_format
from tfdlrm.embeddings.placement.local import LocalPlacement, StackStore
from tfdlrm.embeddings.planner import ShardingPlan, Stack, StoredTable, stack_offsets
from tfdlrm.embeddings.tables import EmbeddingTables

# A tensor of a SavedModel must stay below 2 GB; half of it leaves room for what a server copies.
PART_BYTES = 2**30
NO_ROW = -1
_READ_ROWS = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredArray:
    """One variable's content.

    Args:
        name: of the variable in the SavedModel's module.
        rows, width: its shape.
        dtype: its dtype.
        read: (start, stop) -> values `[stop - start, width]`.
    """

    name: str
    rows: int
    width: int
    dtype: tf.DType
    read: Callable[[int, int], np.ndarray]

    @property
    def num_bytes(self) -> int:
        return self.rows * self.width * self.dtype.size


def empty_variable(name: str, dtype: tf.DType, width: int) -> tf.Variable:
    """A variable whose rows are written to the files later, and with them their number to the graph."""
    return tf.Variable(tf.zeros([0, width], dtype), shape=[None, width], trainable=False, name=name)


class RowErrors(NamedTuple):
    """What rounding did to a table: the largest error, its analytic bound, and rows whose error is beyond theirs."""

    largest: float
    bound: float
    beyond_bound: int


class ServedRows(tf.Module):
    """The rows of one stack, of `RowFormat.stored_width` columns, in parts of at most `part_bytes`.

    Args:
        name: of the variables.
        stack: whose rows they are.
        row_format: how a row is stored.
        kept: by pruning, bool `[num_rows]`: rows that are left out read as zeros. None keeps all.
        part_bytes: upper limit of a part.
    """

    def __init__(
        self,
        name: str,
        stack: Stack,
        row_format: RowFormat,
        kept: np.ndarray | None = None,
        part_bytes: int = PART_BYTES,
    ):
        super().__init__(name=name)
        self.row_format = row_format
        self._label = name
        self._tables = [table.name for table in stack.tables]
        self._offsets = np.array([*stack.offsets, stack.num_rows])
        # filled while the rows are written
        self.errors: dict[str, RowErrors] = {}
        self.kept = None if kept is None else np.flatnonzero(kept)
        self.num_rows = stack.num_rows
        self.num_stored = self.num_rows if self.kept is None else len(self.kept)
        self.rows_a_part = max(1, part_bytes // row_format.row_bytes)
        count = max(1, -(-self.num_stored // self.rows_a_part))
        width = row_format.stored_width
        self.parts = [empty_variable(f"{name}_part_{k}", row_format.dtype, width) for k in range(count)]
        self.places = None if kept is None else empty_variable(f"{name}_places", tf.int32, 1)

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 rows `[N, D]` of ids `[N]`."""
        if self.places is None:
            return self._read(ids)
        if not self.num_stored:
            return tf.zeros([tf.size(ids), self.row_format.width])
        places = tf.gather(self.places, ids)[:, 0]
        rows = self._read(tf.maximum(places, 0))
        return rows * tf.cast(places >= 0, tf.float32)[:, tf.newaxis]

    def _read(self, ids: tf.Tensor) -> tf.Tensor:
        if len(self.parts) == 1:
            return self.row_format.decode(tf.gather(self.parts[0], ids))
        size = tf.constant(self.rows_a_part, ids.dtype)
        part = tf.cast(ids // size, tf.int32)
        count = len(self.parts)
        local = tf.dynamic_partition(tf.math.floormod(ids, size), part, count)
        order = tf.dynamic_partition(tf.range(tf.size(ids)), part, count)
        found = [tf.gather(rows, one) for rows, one in zip(self.parts, local, strict=True)]
        return self.row_format.decode(tf.dynamic_stitch(order, found))

    def arrays(self, read: Callable[[int, int], np.ndarray]) -> Iterator[StoredArray]:
        """What the variables hold.

        Args:
            read: (start, stop) -> float32 rows of the stack.
        """
        for number in range(len(self.parts)):
            start = number * self.rows_a_part
            stop = min(start + self.rows_a_part, self.num_stored)
            yield StoredArray(
                name=f"{self._label}_part_{number}",
                rows=stop - start,
                width=self.row_format.stored_width,
                dtype=self.row_format.dtype,
                read=self._stored(read, start),
            )
        if self.kept is not None:
            yield StoredArray(
                name=f"{self._label}_places",
                rows=self.num_rows,
                width=1,
                dtype=tf.as_dtype(tf.int32),
                read=self._places,
            )

    def _stored(self, read: Callable[[int, int], np.ndarray], offset: int) -> Callable[[int, int], np.ndarray]:
        def stored(start: int, stop: int) -> np.ndarray:
            start, stop = start + offset, stop + offset
            if self.kept is None:
                values, numbers = read(start, stop), np.arange(start, stop)
            else:
                numbers = self.kept[start:stop]
                blocks = numbers // _READ_ROWS
                found = [np.zeros([0, self.row_format.width], np.float32)]
                for block in np.unique(blocks).tolist():  # kept rows may be few and far between
                    wanted = numbers[blocks == block]
                    found.append(read(int(wanted[0]), int(wanted[-1]) + 1)[wanted - wanted[0]])
                values = np.concatenate(found)
            packed = self.row_format.encode(values)
            if self.row_format.is_rounded:
                self._note_errors(numbers, values, packed)
            return packed

        return stored

    def _note_errors(self, numbers: np.ndarray, values: np.ndarray, packed: np.ndarray) -> None:
        decoded = self.row_format.decode(tf.constant(packed)).numpy()
        errors = np.abs(decoded - values).max(axis=1, initial=0.0)
        bounds = self.row_format.error_bound(values)
        edges = np.searchsorted(numbers, self._offsets)
        for name, first, last in zip(self._tables, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if first < last:
                worst = self.errors.setdefault(name, RowErrors(0.0, 0.0, 0))
                self.errors[name] = RowErrors(
                    max(worst.largest, float(errors[first:last].max())),
                    max(worst.bound, float(bounds[first:last].max())),
                    worst.beyond_bound + int((errors[first:last] > bounds[first:last]).sum()),
                )

    def _places(self, start: int, stop: int) -> np.ndarray:
        assert self.kept is not None
        places = np.full([stop - start, 1], NO_ROW, np.int32)
        low, high = np.searchsorted(self.kept, [start, stop])
        places[self.kept[low:high] - start, 0] = np.arange(low, high)
        return places

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Name in the module -> variable."""
        found = {f"{self._label}_part_{k}": part for k, part in enumerate(self.parts)}
        return found if self.places is None else {**found, f"{self._label}_places": self.places}


class ServedStack(StackStore):
    """The stack's rows and, where there are any, its pooling weights."""

    def __init__(self, stack: Stack, served: RowFormat, kept: np.ndarray | None, part_bytes: int):
        super().__init__(stack, seed=0)
        self.served = {"rows": ServedRows(f"{stack.name}_rows", stack, served, kept, part_bytes)}
        self.rows = self.served["rows"]
        if stack.pooling_weights is not None:
            weights = RowFormat(kind="float32", width=1)
            self.served["pooling_weights"] = ServedRows(f"{stack.name}_pooling", stack, weights, None, part_bytes)
            self.pooling = self.served["pooling_weights"]


class ServingPlacement(LocalPlacement):
    """Looks rows up in variables that an export fills.

    Args:
        plan: from `plan_serving`.
        quantization: one of `savedmodels.names.QUANTIZATIONS`.
        kept: stored table -> bool `[V]`, the rows that pruning leaves; tables that are not named keep all.
        part_bytes: upper limit of a variable.
    """

    def __init__(
        self,
        plan: ShardingPlan,
        quantization: str = "none",
        kept: Mapping[str, np.ndarray] | None = None,
        part_bytes: int = PART_BYTES,
    ):
        tf.Module.__init__(self, name="serving_placement")
        self.plan = plan
        self.stores = [
            ServedStack(
                stack,
                row_format(quantization, stack.embedding_dim, stack.row_dtype),
                _kept_of(stack, kept or {}),
                part_bytes,
            )
            for stack in plan.stacks
        ]
        self._held = {}

    def arrays(self, tables: EmbeddingTables) -> Iterator[StoredArray]:
        """What every variable holds, read from live tables."""
        for store in self._stacks():
            for kind, served in store.served.items():
                yield from served.arrays(_reader(tables, store.stack, kind))

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Name in the module -> variable."""
        found: dict[str, tf.Variable] = {}
        for store in self._stacks():
            for served in store.served.values():
                found.update(served.variables_by_name())
        return found

    def as_stored(self, tables: EmbeddingTables) -> LocalPlacement:
        """The live tables' rows, read as they come out of the export: for comparing both."""
        placement = LocalPlacement(self.plan, 0)
        for store, served in zip(placement.stores, self._stacks(), strict=True):
            form = served.served["rows"]
            store.rows = LiveRows(tables, served.stack, "rows", form.row_format, form.kept)  # type: ignore[assignment]
            if served.pooling is not None:
                weights = RowFormat(kind="float32", width=1)
                store.pooling = LiveRows(tables, served.stack, "pooling_weights", weights, None)  # type: ignore[assignment]
        return placement

    def row_errors(self) -> dict[str, dict[str, float]]:
        """What rounding did, by stored table; nothing before the rows were written, or where none is rounded."""
        return {n: e._asdict() for store in self._stacks() for n, e in store.served["rows"].errors.items()}

    def formats(self) -> dict[str, RowFormat]:
        """Stored table -> how its rows are stored."""
        return {t.name: s.served["rows"].row_format for s in self._stacks() for t in s.stack.tables}

    def _stacks(self) -> list[ServedStack]:
        return [store for store in self.stores if isinstance(store, ServedStack)]


class LiveRows:
    """Rows of live tables, one by one, as an export would give them; only outside of graphs."""

    def __init__(
        self, tables: EmbeddingTables, stack: Stack, kind: str, row_format: RowFormat, kept: np.ndarray | None
    ):
        self._read = _reader(tables, stack, kind)
        self._format = row_format
        self._dropped_but = None if kept is None else frozenset(kept.tolist())

    def gather(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 rows `[N, D]` of ids `[N]`."""
        numbers, places = np.unique(ids.numpy(), return_inverse=True)
        if not len(numbers):
            return tf.zeros([0, self._format.width])
        rows = np.concatenate([self._read(number, number + 1) for number in numbers.tolist()])
        rows = self._format.decode(tf.constant(self._format.encode(rows))).numpy()
        if self._dropped_but is not None:
            rows[[number not in self._dropped_but for number in numbers.tolist()]] = 0
        return tf.constant(rows[places])


def plan_serving(plan: ShardingPlan, quantization: str = "none", part_bytes: int = PART_BYTES) -> ShardingPlan:
    """Stacks for serving: tables of one width and kind together, up to `part_bytes`, in the order of training.

    A table that is larger has a stack of its own, whose rows are then divided over several variables: so only such a
    table pays for finding out in which of them a row is.
    """
    stacks: list[Stack] = []
    open_stacks: dict[object, list[StoredTable]] = {}

    def close(key: object) -> None:
        tables = open_stacks.pop(key, None)
        if tables:
            stacks.append(Stack(name=f"stack_{len(stacks)}", tables=tuple(tables), offsets=stack_offsets(tables)))

    for table in (table for stack in plan.stacks for table in stack.tables):
        key: object = (table.embedding_dim, table.pooling_weights, table.row_dtype)
        row_bytes = row_format(quantization, table.embedding_dim, table.row_dtype).row_bytes
        held = sum(other.vocabulary_size for other in open_stacks.get(key, []))
        if (held + table.vocabulary_size) * row_bytes > part_bytes:
            close(key)
        open_stacks.setdefault(key, []).append(table)
    for key in list(open_stacks):
        close(key)
    reasons = tuple(f"{stack.name}: {len(stack.tables)} tables, {stack.num_rows} rows" for stack in stacks)
    return ShardingPlan(stacks=tuple(stacks), reasons=reasons)


def _kept_of(stack: Stack, kept: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if not any(table.name in kept for table in stack.tables):
        return None
    return np.concatenate([kept.get(table.name, np.ones(table.vocabulary_size, bool)) for table in stack.tables])


def _reader(tables: EmbeddingTables, stack: Stack, kind: str) -> Callable[[int, int], np.ndarray]:
    pieces = {table.name: tables.array(f"{table.name}/{kind}") for table in stack.tables}

    def read(start: int, stop: int) -> np.ndarray:
        parts: list[np.ndarray] = []
        for table, offset in zip(stack.tables, stack.offsets, strict=True):
            low, high = max(start, offset), min(stop, offset + table.vocabulary_size)
            if low < high:
                parts.append(pieces[table.name].read(low - offset, high - offset).numpy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return read
