"""Rows cut over parameter servers: looked up and pooled on the worker, updated where they lie.

A lookup asks each server once, for each row once. A push tells each server once. See docs/decisions/0008.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfdlrm.embeddings.placement.base import IdGroup, TableSlice
from tfdlrm.embeddings.placement.local import POOLING, ROWS, LocalResidual, pool_rows, spread_gradients
from tfdlrm.embeddings.placement.push_guard import UNNUMBERED, PushNumber
from tfdlrm.embeddings.placement.shard_store import piece_slices
from tfdlrm.embeddings.placement.table_server import StackGradient, StackRows, TableServer
from tfdlrm.embeddings.planner import ShardingPlan
from tfdlrm.embeddings.shard_plan import ShardedStack, ShardPlan


class Fetched(NamedTuple):
    """Unique rows of one stack that one lookup asked for: ids by server, and the row of each id that was given.

    `index` `[N]` counts rows over all servers, one server after the other.
    """

    stack: int
    ids: tuple[tf.Tensor, ...]
    index: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Residual:
    """Of one group: how its bags were pooled (by `Fetched.index`), and what was fetched for it."""

    local: LocalResidual
    fetched: Fetched


class ParameterServerPlacement(tf.Module):
    """See `base.Placement`.

    Args:
        plan: stacks, as for one process.
        seed: of initial values.
        shards: what each server holds of them.
        devices: of the servers.
        wire_dtype: "float32" or "bfloat16", of rows and gradients on the network.
    """

    def __init__(
        self, plan: ShardingPlan, seed: int, shards: ShardPlan, devices: Sequence[str], wire_dtype: str = "float32"
    ):
        super().__init__(name="parameter_server_placement")
        self.plan = dataclasses.replace(plan, reasons=shards.reasons)
        self.shards = shards
        self.servers = [TableServer(shards, k, device, seed, wire_dtype) for k, device in enumerate(devices)]
        self._number: PushNumber | None = None
        self._places: Sequence[tf.Tensor] | None = None
        self._pushed: dict[int, list[int]] = {}

    @property
    def home(self) -> str | None:
        return self.servers[0].device

    @property
    def in_process(self) -> bool:
        return False

    @property
    def takes_bags(self) -> bool:
        return False

    def build(self) -> None:
        for server in self.servers:
            server.build()

    def lookup(self, group: IdGroup) -> tuple[tf.Tensor, Residual]:
        return self.lookup_all([group])[0]

    def lookup_all(self, groups: Sequence[IdGroup]) -> list[tuple[tf.Tensor, Residual]]:
        by_stack: dict[int, list[IdGroup]] = {}
        for group in groups:
            by_stack.setdefault(group.stack, []).append(group)
        wanted = {stack: self._unique(stack, members) for stack, members in by_stack.items()}
        answers = [
            server.fetch({stack: fetched.ids[number] for stack, fetched in wanted.items()})
            for number, server in enumerate(self.servers)
        ]
        rows = {stack: _joined([answer[stack] for answer in answers if stack in answer]) for stack in wanted}
        taken = dict.fromkeys(by_stack, 0)
        found = []
        for group in groups:
            fetched = wanted[group.stack]
            start = taken[group.stack]
            count = tf.size(group.ids)
            taken[group.stack] = start + count
            alone = len(by_stack[group.stack]) == 1
            index = fetched.index if alone else fetched.index[start : start + count]
            rows_of, pooling = rows[group.stack]
            pooled, local = pool_rows(
                self.plan.stacks[group.stack],
                dataclasses.replace(group, ids=index),
                tf.gather(rows_of, index),
                None if pooling is None else tf.gather(pooling, index),
            )
            found.append((pooled, Residual(local, fetched)))
        return found

    def _unique(self, stack: int, groups: list[IdGroup]) -> Fetched:
        ids = groups[0].ids if len(groups) == 1 else tf.concat([group.ids for group in groups], axis=0)
        unique, index = tf.unique(tf.reshape(ids, [-1]))
        sharded = self.shards.stacks[stack]
        place = _places(sharded, unique)
        num_servers = len(self.servers)
        if num_servers == 1:
            return Fetched(stack, (tf.cast(place, self.servers[0].id_dtype(stack)),), index)
        first = tf.constant(sharded.first_rows, tf.int64)
        server = tf.searchsorted(tf.constant(_ends(sharded), tf.int64), place, side="right")
        parts = tf.dynamic_partition(place - tf.gather(first, server), server, num_servers)
        order = tf.concat(tf.dynamic_partition(tf.range(tf.size(unique)), server, num_servers), axis=0)
        ids_by_server = tuple(
            tf.cast(part, table_server.id_dtype(stack)) for part, table_server in zip(parts, self.servers, strict=True)
        )
        return Fetched(stack, ids_by_server, tf.gather(tf.math.invert_permutation(order), index))

    def gradients(self, pairs: list[tuple[Residual, tf.Tensor]]) -> dict[str, dict[str, tf.Tensor]]:
        """`<server>/<stack>` -> ids `[n]`, sums `[n, D]` and, where they learn, sums of pooling weights `[n, 1]`."""
        lookups: dict[int, tuple[Fetched, list]] = {}
        for residual, gradient in pairs:
            if self.plan.stacks[residual.fetched.stack].trainable:
                entry = lookups.setdefault(id(residual.fetched), (residual.fetched, []))
                entry[1].append(spread_gradients(residual.local, tf.cast(gradient, tf.float32)))
        parts: list[dict[str, dict[str, tf.Tensor]]] = []
        for fetched, spread in lookups.values():
            counts = [tf.size(ids) for ids in fetched.ids]
            sums = {
                kind: tf.split(_summed([one[kind] for one in spread], tf.add_n(counts)), counts) for kind in spread[0]
            }
            parts.append(
                {
                    f"{server}/{fetched.stack}": {"ids": ids, **{kind: split[server] for kind, split in sums.items()}}
                    for server, ids in enumerate(fetched.ids)
                    if fetched.stack in self.servers[server].stacks
                }
            )
        return self.merge(parts)

    def merge(self, parts: list[dict[str, dict[str, tf.Tensor]]]) -> dict[str, dict[str, tf.Tensor]]:
        """Ids may come twice then; the servers sum."""
        merged: dict[str, list[dict[str, tf.Tensor]]] = {}
        for part in parts:
            for key, one in part.items():
                merged.setdefault(key, []).append(one)
        return {
            key: ones[0] if len(ones) == 1 else {kind: tf.concat([o[kind] for o in ones], axis=0) for kind in ones[0]}
            for key, ones in merged.items()
        }

    def squared_norm(self, gradients: dict[str, dict[str, tf.Tensor]]) -> tf.Tensor:
        """Of one worker's gradients."""
        squares = []
        for one in gradients.values():
            ids, index = tf.unique(one["ids"])
            for kind in (ROWS, POOLING):
                if kind in one:
                    total = tf.math.unsorted_segment_sum(one[kind], index, tf.size(ids))
                    squares.append(tf.reduce_sum(total * total))
        return tf.add_n(squares) if squares else tf.constant(0.0)

    @contextlib.contextmanager
    def pushing(self, number: PushNumber, places: Sequence[tf.Tensor] | None = None) -> Iterator[None]:
        """What `apply` sends while it is open is numbered; given places, it waits in them for `apply_parts`.

        Args:
            number: of the push.
            places: of one part of a synchronous step; see `places`.
        """
        before = self._number, self._places
        self._number, self._places = number, places
        try:
            yield
        finally:
            self._number, self._places = before

    def places(self, part: int) -> list[tf.Tensor]:
        """Where one part of a synchronous step leaves its pushes: a handle on each server."""
        return [server.place(part).handle for server in self.servers]

    def apply(
        self,
        gradients: dict[str, dict[str, tf.Tensor]],
        *,
        learning_rate: tf.Tensor | None,
        step: tf.Tensor,
        scale: tf.Tensor | None,
    ) -> None:
        number = self._number or PushNumber(*(tf.constant(value, tf.int64) for value in UNNUMBERED))
        rate = tf.constant(0.0) if learning_rate is None else learning_rate
        self._refuse_without_rate(gradients, learning_rate)
        for position, server in enumerate(self.servers):
            push = {
                stack: _stack_gradient(gradients[f"{position}/{stack}"], scale)
                for stack in server.stacks
                if f"{position}/{stack}" in gradients
            }
            if not push:
                continue
            words = server.message(push, rate, step, number)
            self._pushed[position] = list(push)
            if self._places is None:
                server.receive(words, list(push))
            else:
                server.leave(words, self._places[position])

    def apply_parts(self, num_parts: int) -> None:
        """Updates with what all parts of a synchronous step have left. Traced after a part was."""
        for position, stacks in self._pushed.items():
            self.servers[position].apply_places(num_parts, stacks)

    def _refuse_without_rate(self, gradients: dict[str, Any], learning_rate: tf.Tensor | None) -> None:
        for key in gradients:
            stack = self.plan.stacks[int(key.rpartition("/")[2])]
            if learning_rate is None and stack.optimizer.learning_rate is None:
                raise ValueError(
                    f"tables {[table.name for table in stack.tables[:3]]}: {type(stack.optimizer).__name__} has no "
                    "learning_rate and there is no dense optimizer to follow. Give the row optimizer one."
                )

    def prepare_holding(self) -> None:
        raise ValueError(
            "parameter servers: gradient_accumulation_steps cannot be honoured, because pushes of several workers "
            "would be held together. Leave it out, or raise the batch size."
        )

    def hold(self, gradients: Any) -> None:
        self.prepare_holding()

    def slices(self) -> Iterator[TableSlice]:
        yield from piece_slices(self.shards, lambda stack, k: self.servers[k].store(stack), len(self.plan.stacks))


def _stack_gradient(one: dict[str, tf.Tensor], scale: tf.Tensor | None) -> StackGradient:
    rows, pooling = one[ROWS], one.get(POOLING)
    if scale is not None:
        rows = rows * scale
        pooling = None if pooling is None else pooling * scale
    return StackGradient(one["ids"], rows, pooling)


def _joined(answers: list[StackRows]) -> StackRows:
    if len(answers) == 1:
        return answers[0]
    pooling = None if answers[0].pooling is None else tf.concat([a.pooling for a in answers], axis=0)
    return StackRows(tf.concat([answer.rows for answer in answers], axis=0), pooling)


def _summed(parts: list[Any], num_rows: tf.Tensor) -> tf.Tensor:
    """Sums `[num_rows, W]` of spread gradients by the number of their row."""
    ids = parts[0].ids if len(parts) == 1 else tf.concat([part.ids for part in parts], axis=0)
    values = parts[0].values if len(parts) == 1 else tf.concat([part.values for part in parts], axis=0)
    return tf.math.unsorted_segment_sum(values, ids, num_rows)


def _ends(sharded: ShardedStack) -> list[int]:
    """Where each server's rows end, counted one server after the other; the last end is left out."""
    return list(sharded.first_rows[1:])


def _places(sharded: ShardedStack, ids: tf.Tensor) -> tf.Tensor:
    """Rows of a stack -> their numbers when all servers' rows are counted one server after the other; int64."""
    ids = tf.cast(ids, tf.int64)
    stack = sharded.stack
    permutations = [next(p for p in sharded.pieces if p.table_row == first).permutation for first in stack.offsets]
    if any(not permutation.is_identity for permutation in permutations):
        offsets = tf.constant(stack.offsets, tf.int64)
        table = tf.searchsorted(offsets, ids, side="right") - 1
        first = tf.gather(offsets, table)
        factor, shift, size = (
            tf.gather(tf.constant([getattr(p, name) for p in permutations], tf.int64), table)
            for name in ("factor", "shift", "size")
        )
        ids = first + ((ids - first) * factor + shift) % size
    if len(sharded.pieces) == 1 and sharded.pieces[0].offset == 0:
        return ids
    pieces = sorted(sharded.pieces, key=lambda piece: piece.table_row + piece.start)
    starts = [piece.table_row + piece.start for piece in pieces]
    moves = [
        sharded.first_rows[piece.server] + piece.offset - start for piece, start in zip(pieces, starts, strict=True)
    ]
    if not any(moves):
        return ids
    piece_of = tf.searchsorted(tf.constant(starts, tf.int64), ids, side="right") - 1
    return ids + tf.gather(tf.constant(moves, tf.int64), piece_of)
