"""The engine's front: a set of tables that are looked up, updated once a step, read and restored by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops
from tensorflow.python.trackable import base as trackable

from tfdlrm.checks import nearest, quoted
from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings.lookup import LookupPlan
from tfdlrm.embeddings.optimizers import RowOptimizer, RowwiseAdagrad
from tfdlrm.embeddings.placement.base import Gradients, Placement, Residual, TableSlice, check_rows
from tfdlrm.embeddings.placement.choice import default_placement
from tfdlrm.embeddings.planner import ShardingPlan, plan_local, stored_tables

Pairs = list[tuple[Residual, tf.Tensor]]
READ_BYTES = 64 * 2**20  # of a whole array, rows that are moved at a time


class WeightArray(NamedTuple):
    """An array that is weights and not state of an optimizer: `item/rows`, `item/pooling_weights`."""

    name: str
    num_rows: int
    width: int
    dtype: str
    trainable: bool


class EmbeddingTables(tf.Module):
    """Embedding tables and the state of their row optimizers.

    Args:
        tables: logical tables; names are unique.
        optimizer: for tables that have none of their own; default `RowwiseAdagrad()`, following the learning
            rate of the model's dense optimizer.
        seed: of the initial values. The same seed gives the same rows under any plan.
        placement: makes a placement of a plan and a seed; default: that of the strategy whose scope this is, and
            outside of one everything local, by the native kernels where they can be had.

    Example:
        >>> tables = EmbeddingTables([TableConfig(name="item", vocabulary_size=1000, embedding_dim=16)])
        >>> tables.build()
        >>> tables.rows("item", 0, 3).shape
        TensorShape([3, 16])
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        optimizer: RowOptimizer | None = None,
        *,
        seed: int = 0,
        plan: Callable[[Iterable], ShardingPlan] = plan_local,
        placement: Callable[[ShardingPlan, int], Placement] | None = None,
    ):
        super().__init__(name="embedding_tables")
        self.configs = {table.name: table for table in tables}
        if len(self.configs) != len(tables):
            names = [table.name for table in tables]
            double = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"tables {double} are given more than once. Give each table once and share it by name.")
        if optimizer is not None and not isinstance(optimizer, RowOptimizer):
            raise TypeError(
                f"EmbeddingTables: optimizer={quoted(optimizer)} is no row optimizer, and a dense "
                "one would touch every row. "
                "Give SGD, Adagrad, RowwiseAdagrad, LazyAdam or FTRL of tfdlrm.optimizers, RowwiseAdagrad() say."
            )
        self.optimizer = optimizer or RowwiseAdagrad()
        self.seed = seed
        stored = [part for table in tables for part in stored_tables(table, self.optimizer)]
        self.placement = (placement or default_placement())(plan(stored), seed)
        self.built = False

    @property
    def plan(self) -> ShardingPlan:
        return self.placement.plan

    def build(self) -> None:
        """Creates the variables; a second call does nothing."""
        if self.built:
            return
        with tf.init_scope(), tf.device(self.placement.home):
            self.placement.build()
            self.iterations = resource_variable_ops.ResourceVariable(
                tf.constant(0, tf.int64), trainable=False, name="embedding_iterations"
            )
        # an attribute of this kind, so that a tf.train.Checkpoint restored before the build finds them now
        self._in_checkpoints = {name: _ArrayInCheckpoint(self, name) for name in self.array_names()}
        self.built = True

    @contextlib.contextmanager
    def served_from(self, placement: Placement) -> Iterator[None]:
        """While it is open, lookups are made by another placement of the same tables: for tracing an export."""
        own, self.placement = self.placement, placement
        try:
            yield
        finally:
            self.placement = own

    def lookup_plan(self, features: Sequence[FeatureConfig]) -> LookupPlan:
        return LookupPlan(features, self.plan)

    @property
    def takes_bags(self) -> bool:
        """What `LookupPlan.groups` needs to know: which groups the placement looks up now."""
        return self.placement.takes_bags

    def lookup(self, group: Any) -> tuple[tf.Tensor, Residual]:
        """Pooled vectors of one group of `LookupPlan.groups`, and what `update` needs of it."""
        return self.placement.lookup(group)

    def lookup_all(self, groups: Sequence[Any]) -> list[tuple[tf.Tensor, Residual]]:
        """`lookup` of several groups, which a placement may make at once."""
        return self.placement.lookup_all(groups)

    def gradients(self, pairs: Pairs) -> Gradients:
        """This replica's gradients, in the placement's own form.

        Args:
            pairs: (residual, gradient of its pooled vectors `[num_bags, D]`).
        """
        return self.placement.gradients(pairs)

    def squared_norm(self, gradients: Gradients, *, average_over: int = 1) -> tf.Tensor:
        """Sum of squares over all replicas and over what is held, duplicates summed first; float32 scalar.

        Args:
            gradients: from `gradients`.
            average_over: micro-batches that the gradients are averaged over.
        """

        def once(gradients: Gradients) -> tf.Tensor:
            return self.placement.squared_norm(gradients) / average_over**2

        return self._in_one_place(once, gradients)

    def apply(
        self,
        gradients: Gradients,
        *,
        learning_rate: float | tf.Tensor | None = None,
        factor: tf.Tensor | None = None,
        condition: tf.Tensor | None = None,
        hold: tf.Tensor | None = None,
        average_over: int = 1,
    ) -> None:
        """Updates every touched row once.

        Under a mirrored strategy, called in every replica, it sums the replicas' gradients and updates once.

        Args:
            gradients: from `gradients`.
            learning_rate: for tables whose optimizer has none.
            factor: scalar that multiplies all gradients (clipping).
            condition: bool scalar; False leaves everything as it is (gradients that are not finite).
            hold: bool scalar; True keeps the gradients for a later call instead (gradient accumulation).
            average_over: micro-batches that held and new gradients are averaged over.
        """
        if learning_rate is not None:
            learning_rate = tf.cast(learning_rate, tf.float32)

        def once(gradients: Gradients, rate: Any, factor: Any, condition: Any, hold: Any) -> tf.Tensor:
            def update() -> tf.Tensor:
                step = self.iterations.read_value()
                scale = factor if average_over == 1 else (1.0 if factor is None else factor) / average_over
                self.placement.apply(gradients, learning_rate=rate, step=step, scale=scale)
                self.iterations.assign_add(1)
                return tf.constant(True)

            def keep() -> tf.Tensor:
                self.placement.hold(gradients)
                return tf.constant(False)

            def proceed() -> tf.Tensor:
                return update() if hold is None else tf.cond(hold, keep, update)

            return proceed() if condition is None else tf.cond(condition, proceed, lambda: tf.constant(False))

        self._in_one_place(once, gradients, learning_rate, factor, condition, hold)

    def update(self, pairs: Pairs, *, learning_rate: float | tf.Tensor | None = None) -> None:
        """`apply(gradients(pairs))`."""
        self.apply(self.gradients(pairs), learning_rate=learning_rate)

    def _in_one_place(self, function: Callable[..., tf.Tensor], gradients: Gradients, *options: Any) -> tf.Tensor:
        """Calls `function` once with the sum of all replicas' gradients."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return function(gradients, *options)

        def merged(strategy: tf.distribute.Strategy, gradients: Gradients, options: Any) -> tf.Tensor:
            parts = [_replica(strategy, gradients, replica) for replica in range(strategy.num_replicas_in_sync)]
            return function(self.placement.merge(parts), *_replica(strategy, options, 0))

        return context.merge_call(merged, args=(gradients, options))

    def array(self, name: str) -> TableSlice:
        """One stored array by its checkpoint name, e.g. `"item/rows"`, `"item/accumulator"`, `"item/quotient/rows"`."""
        found = [piece for piece in self.slices() if piece.name == name]
        if not found:
            near = nearest(name, [piece.name for piece in self.slices()])
            raise KeyError(
                f"array {quoted(name)} is not stored here{f'; did you mean {quoted(near)}?' if near else '.'}"
            )
        return found[0]

    def rows(self, table: str, start: int = 0, stop: int | None = None) -> tf.Tensor:
        """Rows `[start, stop)` of a stored table, `[stop - start, D]` float32. Costs their size.

        Raises:
            ValueError: there are no such rows.
        """
        name = f"{table}/rows"
        whole = self.array(name)
        stop = whole.total if stop is None else stop
        if not 0 <= start <= stop <= whole.total:
            raise ValueError(f"{name}: rows [{start}, {stop}) are outside [0, {whole.total}), or none.")
        spans = self._spans(name, start, stop)
        parts = [piece.read(low - piece.start, high - piece.start) for piece, low, high in spans]
        return parts[0] if len(parts) == 1 else tf.concat([*parts, tf.zeros([0, whole.width])], axis=0)

    def assign_rows(self, table: str, values: np.ndarray | tf.Tensor, start: int = 0) -> None:
        """Overwrites rows from `start` on with `[n, D]` values."""
        self._assign(f"{table}/rows", values, start)

    def assign_pooling_weights(self, table: str, values: np.ndarray | tf.Tensor, start: int = 0) -> None:
        """Sets the per-row weights of weighted pooling, `[n]`."""
        self._assign(f"{table}/pooling_weights", tf.reshape(tf.cast(values, tf.float32), [-1, 1]), start)

    def _assign(self, name: str, values: np.ndarray | tf.Tensor, start: int) -> None:
        whole = self.array(name)
        stop = start + len(values)
        if start < 0 or stop > whole.total:
            raise ValueError(f"{name}: rows [{start}, {stop}) are outside [0, {whole.total}).")
        check_rows(name, values, len(values), whole.width)
        for piece, low, high in self._spans(name, start, stop):
            piece.write(low - piece.start, values[low - start : high - start])

    def _spans(self, name: str, start: int, stop: int) -> Iterator[tuple[TableSlice, int, int]]:
        """Rows `[start, stop)` of a stored array by the slices that hold them."""
        for piece in self.slices():
            low, high = max(start, piece.start), min(stop, piece.stop)
            if piece.name == name and low < high:
                yield piece, low, high

    def slices(self) -> Iterator[TableSlice]:
        """Every stored array, as contiguous slices of logical arrays: what a checkpoint holds."""
        return self.placement.slices()

    def array_names(self) -> list[str]:
        """Of every stored array, each once."""
        return list(dict.fromkeys(piece.name for piece in self.slices()))

    def weight_arrays(self) -> Iterator[WeightArray]:
        """Rows, and pooling weights where there are any, of every stored table in the order of the configs."""
        stacks = {stored.name: stack for stack in self.plan.stacks for stored in stack.tables}
        for config in self.configs.values():
            for stored in stored_tables(config, self.optimizer):
                trainable, pooling = stored.trainable, stacks[stored.name].pooling_weights
                yield WeightArray(
                    f"{stored.name}/rows", stored.vocabulary_size, stored.embedding_dim, stored.row_dtype, trainable
                )
                if pooling is not None:
                    learned = trainable and pooling == "learned"
                    yield WeightArray(f"{stored.name}/pooling_weights", stored.vocabulary_size, 1, "float32", learned)

    def read_array(self, name: str) -> np.ndarray:
        """A whole stored array by its checkpoint name, `[V, width]` float32, wherever its rows are. Costs its size."""
        first = self.array(name)
        values = np.empty((first.total, first.width), np.float32)
        for piece, start, stop in self._chunks(name):
            values[start:stop] = piece.read(start - piece.start, stop - piece.start)
        return values

    def write_array(self, name: str, values: Any) -> None:
        """Overwrites a whole stored array.

        Args:
            name: its checkpoint name.
            values: `[V, width]`; anything that gives NumPy rows when it is sliced.

        Raises:
            ValueError: of another shape; nothing is written.
        """
        first, shape = self.array(name), tuple(values.shape)
        if shape != (first.total, first.width):
            table, _, kind = name.rpartition("/")
            raise ValueError(
                f"table {quoted(table)}: its {kind} are {[first.total, first.width]}, and were "
                f"given as {list(shape)}. Use "
                "the vocabulary_size and embedding_dim that they were saved with."
            )
        for piece, start, stop in self._chunks(name):
            piece.write(start - piece.start, np.asarray(values[start:stop], np.float32))

    def _chunks(self, name: str) -> Iterator[tuple[TableSlice, int, int]]:
        for piece in self.slices():
            if piece.name == name:
                for start, stop in piece.ranges(READ_BYTES):
                    yield piece, start, stop

    def copy_rows_from(self, other: EmbeddingTables) -> list[str]:
        """Takes over the rows of tables that were trained before: to go on with a larger vocabulary.

        Rows `[0, V)` of each table that both have, the state of their row optimizers and the number of updates are
        copied; rows from V on, and tables that `other` has not, stay as they are.

        Args:
            other: built, of this width and row optimizer, each table with as many rows or fewer.

        Returns:
            Names of the arrays that were copied.

        Raises:
            ValueError: nothing in common, or a table that does not fit; nothing is copied.

        Example:
            >>> larger.tables.copy_rows_from(layer.tables)
            ['item/rows', 'item/accumulator']
        """
        self.build()
        theirs = {piece.name: (piece.total, piece.width) for piece in other.slices()}
        ours = {piece.name: (piece.total, piece.width) for piece in self.slices()}
        common = {name.rpartition("/")[0] for name in ours} & {name.rpartition("/")[0] for name in theirs}
        both = [name for name in ours if name.rpartition("/")[0] in common]
        if not both:
            raise ValueError(f"no table in common: these are {sorted(self.configs)}, those {sorted(other.configs)}.")
        for name in {**ours, **theirs}:
            if name.rpartition("/")[0] not in common:
                continue
            if name not in ours or name not in theirs:
                raise ValueError(
                    f"{name}: only one of the two has it. Use the row optimizer and the pooling that the rows were "
                    "trained by."
                )
            if theirs[name][0] > ours[name][0] or theirs[name][1] != ours[name][1]:
                raise ValueError(
                    f"{name}: {list(theirs[name])} cannot be copied into {list(ours[name])}. The width must be the "
                    "same, and the vocabulary at least as large."
                )
        for name in both:
            values = other.read_array(name)
            for piece, start, stop in self._chunks(name):
                if start < len(values):
                    piece.write(start - piece.start, values[start : min(stop, len(values))])
        self.iterations.assign(other.iterations)
        return both

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            children.pop("placement", None)  # its rows are saved by table, so that another plan restores them
        else:
            children.pop("_in_checkpoints", None)
        return children

    @property
    def num_bytes(self) -> int:
        """Bytes of rows, slots and pooling weights."""
        return sum((piece.stop - piece.start) * piece.row_bytes for piece in self.slices())


class _ArrayInCheckpoint(trackable.Trackable):
    """A stored array as `tf.train.Checkpoint` saves and restores it: whole, whatever the plan."""

    def __init__(self, tables: EmbeddingTables, name: str):
        self._tables = tables
        self._name = name

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"values": tf.constant(self._tables.read_array(self._name))}

    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> None:
        self._tables.write_array(self._name, restored_tensors["values"].numpy())

    def _copy_trackable_to_cpu(self, object_map: Any) -> None:
        object_map[self] = self


def _replica(strategy: tf.distribute.Strategy, value: Any, replica: int) -> Any:
    return tf.nest.map_structure(lambda tensor: strategy.experimental_local_results(tensor)[replica], value)
