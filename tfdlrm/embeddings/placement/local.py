"""All rows in one process: one un-mirrored variable a stack, updated in place."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.checks import quoted
from tfdlrm.embeddings.initializers import BLOCK_ROWS, Constant, Initializer, initial_rows, table_seed
from tfdlrm.embeddings.placement.base import IdGroup, RowGradients, TableSlice, check_rows, slot_arrays
from tfdlrm.embeddings.placement.rows import RowArray
from tfdlrm.embeddings.planner import ShardingPlan, Stack

ROWS = "rows"
POOLING = "pooling_weights"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalResidual:
    """What the update needs of a lookup.

    `coefficient` `[N]` is d(bag)/d(row) for each id (weights and the combiner's scale), None for 1. With pooling
    weights, `id_weight` is the same without the pooling weight and `rows` are the rows as they were looked up.
    """

    group: IdGroup
    coefficient: tf.Tensor | None
    id_weight: tf.Tensor | None = None
    rows: tf.Tensor | None = None


class StackStore(tf.Module):
    """Variables of one stack: rows `[V, D]`, one array a slot, and pooling weights `[V, 1]` with their own slots."""

    def __init__(self, stack: Stack, seed: int):
        super().__init__(name=stack.name)
        self.stack = stack
        self._seed = seed
        self.rows: RowArray | None = None
        self.slots: dict[str, RowArray] = {}
        self.pooling: RowArray | None = None
        self.pooling_slots: dict[str, RowArray] = {}

    def build(self) -> None:
        stack = self.stack
        self.rows = self._array(ROWS, stack.embedding_dim, None)
        for name, (width, value) in slot_arrays(stack).items():
            self.slots[name] = self._array(name, width, value)
        if stack.pooling_weights is None:
            return
        self.pooling = self._array(POOLING, 1, 1.0)
        if stack.pooling_weights == "learned" and stack.trainable:
            for slot in stack.optimizer.slots():
                self.pooling_slots[slot.name] = self._array(f"{POOLING}_{slot.name}", 1, slot.initial_value)

    def _array(self, name: str, width: int, value: float | None) -> RowArray:
        stack = self.stack
        dtype = stack.row_dtype if name == ROWS else "float32"
        seed = table_seed(self._seed, f"{stack.tables[0].name}/rounding")
        array = RowArray(f"{stack.name}/{name}", stack.num_rows, width, dtype, seed)
        for table, offset in zip(self.stack.tables, self.stack.offsets, strict=True):
            initializer: Initializer = table.initializer if value is None else Constant(value=value)
            seed = table_seed(self._seed, table.name)
            for start in range(0, table.vocabulary_size, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, table.vocabulary_size)
                values = initial_rows(initializer, seed, table.vocabulary_size, width, start, stop)
                array.write(offset + start, values)
        return array

    def arrays(self) -> Iterator[tuple[str, RowArray]]:
        """(checkpoint suffix, array) of everything that is stored for this stack."""
        assert self.rows is not None
        yield ROWS, self.rows
        for name, array in self.slots.items():
            yield name, array
        if self.pooling is not None:
            yield POOLING, self.pooling
        for name, array in self.pooling_slots.items():
            yield f"{POOLING}/{name}", array

    def _trackable_children(self, save_type="checkpoint", **kwargs):  # type: ignore[no-untyped-def]
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel":
            # an exported model looks rows up and never trains
            children.pop("slots", None)
            children.pop("pooling_slots", None)
        return children


class LocalPlacement(tf.Module):
    """See `base.Placement`.

    Args:
        plan: the stacks.
        seed: seed of the initial values.
    """

    def __init__(self, plan: ShardingPlan, seed: int):
        super().__init__(name="local_placement")
        self.plan = plan
        self.stores = [StackStore(stack, seed) for stack in plan.stacks]
        self._held: dict[str, HeldGradients] = {}

    @property
    def home(self) -> str | None:
        return None

    @property
    def in_process(self) -> bool:
        return True

    @property
    def takes_bags(self) -> bool:
        return False

    def build(self) -> None:
        with tf.init_scope():
            for store in self.stores:
                store.build()

    def lookup(self, group: Any) -> tuple[tf.Tensor, Any]:
        store = self.stores[group.stack]
        assert store.rows is not None
        rows = store.rows.gather(group.ids)
        pooling = None if store.pooling is None else store.pooling.gather(group.ids)[:, 0]
        return pool_rows(store.stack, group, rows, pooling)

    def lookup_all(self, groups: Sequence[Any]) -> list[tuple[tf.Tensor, Any]]:
        return [self.lookup(group) for group in groups]

    def gradients(self, pairs: list[tuple[Any, tf.Tensor]]) -> Any:
        """Summed row gradients a variable, under the key `<stack index>/rows` or `<stack index>/pooling_weights`."""
        found: dict[str, list[RowGradients]] = {}
        for residual, gradient in pairs:
            index = residual.group.stack
            if not self.plan.stacks[index].trainable:
                continue
            for kind, part in spread_gradients(residual, gradient).items():
                found.setdefault(f"{index}/{kind}", []).append(part)
        return {key: sum_duplicates(parts) for key, parts in found.items()}

    def merge(self, parts: list[Any]) -> Any:
        keys = sorted({key for part in parts for key in part})
        return {key: sum_duplicates([part[key] for part in parts if key in part]) for key in keys}

    def summed(self, gradients: Any) -> dict[str, RowGradients]:
        """`<stack>/rows` or `<stack>/pooling_weights` -> unique rows and the sums of their gradients, held ones too."""
        return self._with_held(gradients)

    def squared_norm(self, gradients: Any) -> tf.Tensor:
        parts = [tf.reduce_sum(g.values * g.values) for g in self.summed(gradients).values()]
        return tf.add_n(parts) if parts else tf.constant(0.0)

    def _with_held(self, gradients: dict[str, RowGradients]) -> dict[str, RowGradients]:
        if not self._held:
            return gradients
        return self.merge([{key: held.read() for key, held in self._held.items()}, gradients])

    def apply(
        self,
        gradients: dict[str, RowGradients],
        *,
        learning_rate: tf.Tensor | None,
        step: tf.Tensor,
        scale: tf.Tensor | None,
    ) -> None:
        for key, (ids, summed) in self._with_held(gradients).items():
            index, kind = key.split("/")
            store = self.stores[int(index)]
            optimizer = store.stack.optimizer
            if scale is not None:
                summed = summed * scale
            if optimizer.clipnorm is not None:
                summed = tf.clip_by_norm(summed, optimizer.clipnorm)
            target = store.rows if kind == ROWS else store.pooling
            slots = store.slots if kind == ROWS else store.pooling_slots
            assert target is not None
            self.update_array(store, target, slots, RowGradients(ids, summed), learning_rate, step)
        for held in self._held.values():
            held.clear()

    @staticmethod
    def update_array(
        store: StackStore,
        array: RowArray,
        slots: dict[str, RowArray],
        gradients: RowGradients,
        learning_rate: tf.Tensor | None,
        step: tf.Tensor,
    ) -> None:
        """Updates the rows of `gradients`, whose ids are unique, by the stack's optimizer."""
        optimizer = store.stack.optimizer
        rate = resolve_learning_rate(store.stack, learning_rate, step)
        ids, summed = gradients
        narrow = array.dtype != "float32"
        rows = array.gather(ids) if narrow or optimizer.reads_rows() else None
        before = {name: slot.gather(ids) for name, slot in slots.items()}
        result = optimizer.update_rows(rows, before, summed, rate, step)
        for name, values in result.slots.items():
            slots[name].scatter_update(ids, values)
        if result.rows is not None:
            array.scatter_rounded(ids, result.rows, step)
        elif narrow and rows is not None:
            array.scatter_rounded(ids, rows - result.delta, step)
        elif result.delta is not None:
            array.scatter_sub(ids, result.delta)

    def prepare_holding(self) -> None:
        with tf.init_scope():
            for index, stack in enumerate(self.plan.stacks):
                widths = {ROWS: stack.embedding_dim}
                if stack.pooling_weights == "learned":
                    widths[POOLING] = 1
                for kind, width in widths.items():
                    key = f"{index}/{kind}"
                    if stack.trainable and key not in self._held:
                        self._held[key] = HeldGradients(f"{stack.name}_{kind}_held", stack.num_rows, width)

    def hold(self, gradients: dict[str, RowGradients]) -> None:
        """Costs the size of the batches held, never the table's."""
        for key, both in self.summed(gradients).items():
            self._held[key].assign(both)

    def slices(self) -> Iterator[TableSlice]:
        for store in self.stores:
            for suffix, array in store.arrays():
                for table, offset in zip(store.stack.tables, store.stack.offsets, strict=True):
                    yield TableSlice(
                        name=f"{table.name}/{suffix}",
                        total=table.vocabulary_size,
                        width=array.width,
                        start=0,
                        stop=table.vocabulary_size,
                        read=_reader(array, offset),
                        write=_writer(array, offset, f"table {quoted(table.name)}, {suffix}"),
                        row_bytes=array.row_bytes,
                    )


class HeldGradients:
    """Summed row gradients that wait for their update: two un-mirrored variables whose length follows the batch."""

    def __init__(self, name: str, num_rows: int, width: int):
        dtype = tf.int64 if num_rows > tf.int32.max else tf.int32
        make = functools.partial(resource_variable_ops.ResourceVariable, trainable=False)
        self.ids = make(tf.zeros([0], dtype), shape=[None], name=f"{name}_ids")
        self.values = make(tf.zeros([0, width]), shape=[None, width], name=f"{name}_values")

    def read(self) -> RowGradients:
        return RowGradients(self.ids.read_value(), self.values.read_value())

    def assign(self, gradients: RowGradients) -> None:
        self.ids.assign(gradients.ids)
        self.values.assign(gradients.values)

    def clear(self) -> None:
        self.assign(RowGradients(self.ids.read_value()[:0], self.values.read_value()[:0]))


def pool_rows(
    stack: Stack, group: IdGroup, rows: tf.Tensor, pooling: tf.Tensor | None
) -> tuple[tf.Tensor, LocalResidual]:
    """Pooled vectors `[num_bags, D]` of a group, and what its update needs.

    Args:
        stack: of the group.
        group: the bags.
        rows: `[N, D]`, the row of each id.
        pooling: `[N]`, the pooling weight of each id, or None.
    """
    id_weight = _combiner_weights(group)
    coefficient = id_weight
    if pooling is not None:
        coefficient = pooling if id_weight is None else pooling * id_weight
    weighted = rows if coefficient is None else rows * coefficient[:, tf.newaxis]
    learned = stack.pooling_weights == "learned"
    residual = LocalResidual(group=group, coefficient=coefficient, id_weight=id_weight, rows=rows if learned else None)
    return _sum_bags(group, weighted), residual


def spread_gradients(residual: LocalResidual, gradient: tf.Tensor) -> dict[str, RowGradients]:
    """Gradients of each id's row, and of its pooling weight where those learn; nothing is summed."""
    ids = residual.group.ids
    spread = _spread_to_ids(residual.group, gradient)
    by_row = spread if residual.coefficient is None else spread * residual.coefficient[:, tf.newaxis]
    found = {ROWS: RowGradients(ids, by_row)}
    if residual.rows is not None:
        by_weight = tf.reduce_sum(residual.rows * spread, axis=1, keepdims=True)
        if residual.id_weight is not None:
            by_weight = by_weight * residual.id_weight[:, tf.newaxis]
        found[POOLING] = RowGradients(ids, by_weight)
    return found


def sum_duplicates(parts: list[RowGradients]) -> RowGradients:
    """Unique ids, in order of first appearance, and the sum of each one's gradients."""
    ids = parts[0].ids if len(parts) == 1 else tf.concat([part.ids for part in parts], axis=0)
    values = parts[0].values if len(parts) == 1 else tf.concat([part.values for part in parts], axis=0)
    unique, index = tf.unique(ids)
    return RowGradients(unique, tf.math.unsorted_segment_sum(values, index, tf.size(unique)))


def resolve_learning_rate(stack: Stack, default: tf.Tensor | None, step: tf.Tensor) -> tf.Tensor:
    """The stack's own learning rate or schedule at this step, else the default.

    Raises:
        ValueError: neither is given.
    """
    own = stack.optimizer.learning_rate
    if callable(own):
        return tf.cast(own(step), tf.float32)
    if own is not None:
        return tf.constant(own, tf.float32)
    if default is None:
        names = [table.name for table in stack.tables[:3]]
        raise ValueError(
            f"tables {names}: {type(stack.optimizer).__name__} has no learning_rate and there is no dense optimizer "
            "to follow. Give the row optimizer a learning_rate, or pass learning_rate= to update()."
        )
    return tf.cast(default, tf.float32)


def _combiner_weights(group: IdGroup) -> tf.Tensor | None:
    """Per-id weights including the combiner's scale, `[N]`; None where all are 1.

    mean: w / sum(w); sqrtn: w / sqrt(sum(w^2)); a bag whose weights sum to zero gives zeros.
    """
    if group.combiner == "sum" or (group.hotness == 1 and group.weights is None):
        return group.weights
    if group.hotness is not None and group.weights is None:
        scale = 1.0 / group.hotness if group.combiner == "mean" else group.hotness**-0.5
        return tf.fill(tf.shape(group.ids), tf.constant(scale, tf.float32))
    weights = tf.ones(tf.shape(group.ids), tf.float32) if group.weights is None else group.weights
    squares = weights if group.combiner == "mean" else weights * weights
    total = _sum_bags(group, squares[:, tf.newaxis])
    root = total if group.combiner == "mean" else tf.sqrt(total)
    return tf.math.divide_no_nan(weights, _spread_to_ids(group, root)[:, 0])


def _sum_bags(group: IdGroup, values: tf.Tensor) -> tf.Tensor:
    """`[N, W]` -> `[num_bags, W]`."""
    if group.hotness == 1:
        return values
    if group.hotness is not None:
        return tf.reduce_sum(tf.reshape(values, [-1, group.hotness, values.shape[-1]]), axis=1)
    return tf.math.unsorted_segment_sum(values, group.bag_index, group.num_bags)


def _spread_to_ids(group: IdGroup, by_bag: tf.Tensor) -> tf.Tensor:
    """`[num_bags, W]` -> `[N, W]`, each id taking its bag's value."""
    by_bag = tf.reshape(by_bag, [-1, by_bag.shape[-1]])
    if group.hotness == 1:
        return by_bag
    if group.hotness is not None:
        return tf.repeat(by_bag, group.hotness, axis=0)
    return tf.gather(by_bag, group.bag_index)


def _reader(array: RowArray, offset: int) -> Callable[[int, int], tf.Tensor]:
    return lambda start, stop: array.read(offset + start, offset + stop)


def _writer(array: RowArray, offset: int, name: str) -> Callable[[int, np.ndarray | tf.Tensor], None]:
    def write(start: int, values: np.ndarray | tf.Tensor) -> None:
        check_rows(name, values, values.shape[0], array.width)
        array.write(offset + start, tf.convert_to_tensor(values, tf.float32))

    return write
