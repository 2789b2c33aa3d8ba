"""One parameter server as workers see it: a fetch answers with rows, a push updates them; both are one message."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.embeddings.placement import wire
from tfdlrm.embeddings.placement.base import RowGradients
from tfdlrm.embeddings.placement.local import POOLING, ROWS
from tfdlrm.embeddings.placement.push_guard import PushGuard, PushNumber
from tfdlrm.embeddings.placement.shard_store import ShardStore, server_placement
from tfdlrm.embeddings.shard_plan import ShardPlan


class StackRows(NamedTuple):
    """Rows `[n, D]` of one stack's ids on one server, and their pooling weights `[n]` where it has any."""

    rows: tf.Tensor
    pooling: tf.Tensor | None


class StackGradient(NamedTuple):
    """Gradients of one stack's rows on one server: ids `[n]` int32 or int64, sums `[n, D]`, of pooling `[n, 1]`."""

    ids: tf.Tensor
    rows: tf.Tensor
    pooling: tf.Tensor | None


class TableServer(tf.Module):
    """The tables' pieces on one parameter server.

    Args:
        plan: of all servers.
        server: which one.
        device: of the server.
        seed: of initial values.
        wire_dtype: "float32" or "bfloat16", of rows and gradients on the network.
    """

    def __init__(self, plan: ShardPlan, server: int, device: str, seed: int, wire_dtype: str):
        super().__init__(name=f"table_server_{server}")
        self.device = device
        self._wire_dtype = wire_dtype
        self._placement, self.stacks = server_placement(plan, server, device, seed)
        self._names = f"tables_on_{server}"
        self._places: list[tf.Variable] = []

    def build(self) -> None:
        with tf.init_scope():
            for store in self._placement.stores:
                store.build()
            self._guard = PushGuard(self._names, self.device)

    def store(self, stack: int) -> ShardStore | None:
        """What is held of a stack, by its number in the plan of all servers."""
        if stack not in self.stacks:
            return None
        store = self._placement.stores[self.stacks.index(stack)]
        assert isinstance(store, ShardStore)
        return store

    def id_dtype(self, stack: int) -> tf.DType:
        """Of a row's number on this server."""
        store = self.store(stack)
        return tf.int64 if store is not None and store.stack.num_rows > tf.int32.max else tf.int32

    def fetch(self, ids: dict[int, tf.Tensor]) -> dict[int, StackRows]:
        """Rows of unique ids.

        Args:
            ids: stack -> `[n]` numbers of rows on this server.
        """
        stacks = [stack for stack in self.stacks if stack in ids]
        if not stacks:
            return {}
        counts = [tf.size(ids[stack]) for stack in stacks]
        request = wire.message([tf.stack(counts), *(wire.to_words(ids[stack]) for stack in stacks)])
        with tf.device(self.device):
            reader = wire.Reader(tf.identity(request))
            asked = tf.unstack(reader.values(tf.int32, len(stacks)))
            answer = []
            for stack, count in zip(stacks, asked, strict=True):
                store, rows = self._rows_of(stack, reader, count)
                assert store.rows is not None
                answer.append(wire.floats_to_words(store.rows.gather(rows), self._wire_dtype))
                if store.pooling is not None:
                    answer.append(wire.floats_to_words(store.pooling.gather(rows), "float32"))
            reply = wire.message(answer)
        reader = wire.Reader(tf.identity(reply))
        found = {}
        for stack, count in zip(stacks, counts, strict=True):
            held = self.store(stack)
            assert held is not None
            width = held.stack.embedding_dim
            rows = tf.reshape(reader.floats(count * width, self._wire_dtype), [-1, width])
            pooling = None if held.pooling is None else reader.floats(count, "float32")
            found[stack] = StackRows(rows, pooling)
        return found

    def _rows_of(self, stack: int, reader: wire.Reader, count: tf.Tensor) -> tuple[ShardStore, tf.Tensor]:
        store, dtype = self.store(stack), self.id_dtype(stack)
        assert store is not None
        return store, wire.from_words(reader.take(count * (dtype.size // 4)), dtype)

    def message(
        self, gradients: dict[int, StackGradient], learning_rate: tf.Tensor, step: tf.Tensor, number: PushNumber
    ) -> tf.Tensor:
        """A push as words, made by the worker."""
        parts = [wire.to_words(tf.stack([number.block, number.step, tf.cast(step, tf.int64)]))]
        parts.append(wire.to_words(tf.reshape(tf.cast(learning_rate, tf.float32), [1])))
        stacks = [stack for stack in self.stacks if stack in gradients]
        # which stacks are in it is known when it is traced, by both sides
        parts.append(tf.stack([tf.size(gradients[stack].ids) for stack in stacks]))
        for stack in stacks:
            one = gradients[stack]
            parts.append(wire.to_words(one.ids))
            parts.append(wire.floats_to_words(one.rows, self._wire_dtype))
            if one.pooling is not None:
                parts.append(wire.floats_to_words(one.pooling, "float32"))
        return wire.message(parts)

    def receive(self, words: tf.Tensor, stacks: list[int]) -> None:
        """Applies a push; ops of the server. `stacks` are those of the message."""
        with tf.device(self.device):
            self._apply([tf.identity(words)], stacks)

    def place(self, part: int) -> tf.Variable:
        """Where a worker of a synchronous step leaves its push until all have come."""
        with tf.init_scope(), tf.device(self.device):
            while len(self._places) <= part:
                # a variable of unknown rank: one of unknown length cannot be copied between processes
                self._places.append(
                    resource_variable_ops.ResourceVariable(
                        tf.zeros([0], tf.int32),
                        shape=tf.TensorShape(None),
                        trainable=False,
                        name=f"{self._names}_place_{len(self._places)}",
                    )
                )
        return self._places[part]

    def leave(self, words: tf.Tensor, place: tf.Tensor) -> None:
        """Puts a push into a place, given by its handle; twice is as once."""
        with tf.device(self.device):
            tf.raw_ops.AssignVariableOp(resource=place, value=words)

    def apply_places(self, num_parts: int, stacks: list[int]) -> None:
        """Sums what all parts of a synchronous step left, in order, and updates once."""
        with tf.device(self.device):
            self._apply([tf.ensure_shape(self.place(part).read_value(), [None]) for part in range(num_parts)], stacks)

    def _apply(self, messages: list[tf.Tensor], stacks: list[int]) -> None:
        readers = [wire.Reader(words) for words in messages]
        heads = [_Head.read(reader, len(stacks)) for reader in readers]
        with self._guard.once(heads[0].number) as fresh:
            gradients: dict[str, list[RowGradients]] = {}
            for position, stack in enumerate(stacks):
                for reader, head in zip(readers, heads, strict=True):
                    for kind, part in self._parts(stack, reader, head.counts[position]).items():
                        # of a push that was applied before, nothing is left
                        limit = tf.where(fresh, tf.shape(part.ids)[0], 0)
                        key = f"{self.stacks.index(stack)}/{kind}"
                        gradients.setdefault(key, []).append(RowGradients(part.ids[:limit], part.values[:limit]))
            merged = self._placement.merge(
                [dict(zip(gradients, parts, strict=True)) for parts in zip(*gradients.values(), strict=True)]
            )
            self._placement.apply(merged, learning_rate=heads[0].learning_rate, step=heads[0].step, scale=None)

    def _parts(self, stack: int, reader: wire.Reader, count: tf.Tensor) -> dict[str, RowGradients]:
        store, rows = self._rows_of(stack, reader, count)
        width = store.stack.embedding_dim
        sums = tf.reshape(reader.floats(count * width, self._wire_dtype), [-1, width])
        parts = {ROWS: RowGradients(rows, sums)}
        if store.stack.pooling_weights == "learned":
            parts[POOLING] = RowGradients(rows, reader.floats(count, "float32")[:, tf.newaxis])
        return parts


class _Head(NamedTuple):
    """The beginning of a push."""

    number: PushNumber
    step: tf.Tensor
    learning_rate: tf.Tensor
    counts: list[tf.Tensor]

    @classmethod
    def read(cls, reader: wire.Reader, num_stacks: int) -> _Head:
        block, push, step = tf.unstack(reader.values(tf.int64, 3))
        rate = reader.scalar(tf.float32)
        return cls(PushNumber(block, push), step, rate, tf.unstack(reader.values(tf.int32, num_stacks)))
