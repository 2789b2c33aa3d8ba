"""What one parameter server holds of the tables: rows and slots made, updated and read beside each other there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfdlrm.embeddings.initializers import BLOCK_ROWS, Constant, Initializer, table_seed
from tfdlrm.embeddings.placement.base import TableSlice, check_rows
from tfdlrm.embeddings.placement.local import LocalPlacement, StackStore
from tfdlrm.embeddings.placement.native import NativePlacement
from tfdlrm.embeddings.placement.rows import RowArray
from tfdlrm.embeddings.planner import ShardingPlan, Stack
from tfdlrm.embeddings.shard_plan import Piece, ShardedStack, ShardPlan
from tfdlrm.native import loader


class ShardStore(StackStore):
    """A stack's pieces on one server. Nothing is made on the coordinator: initial values are drawn where they stay."""

    def __init__(self, sharded: ShardedStack, server: int, device: str, seed: int):
        self._whole = sharded.stack
        self.pieces = [piece for piece in sharded.pieces if piece.server == server]
        tables = [dataclasses.replace(piece.table, vocabulary_size=piece.num_rows) for piece in self.pieces]
        stack = Stack(
            name=f"{sharded.stack.name}_server_{server}",
            tables=tuple(tables),
            offsets=tuple(piece.offset for piece in self.pieces),
        )
        super().__init__(stack, seed)
        self.device = device

    def _array(self, name: str, width: int, value: float | None) -> RowArray:
        stack = self.stack
        dtype = stack.row_dtype if value is None else "float32"
        with tf.device(self.device):
            rounding = table_seed(self._seed, f"{self._whole.tables[0].name}/rounding")
            array = ShardRows(f"{stack.name}/{name}", self.pieces, width, dtype, rounding)
            for piece in self.pieces:
                initializer = piece.table.initializer if value is None else Constant(value=value)
                _fill(array, piece, initializer, table_seed(self._seed, piece.table.name), width)
        return array


class ShardRows(RowArray):
    """Rows of some pieces of a stack; they are rounded as in one process, by their numbers in the whole stack.

    Args:
        name, width, dtype, seed: as of `RowArray`.
        pieces: in order of their offsets.
    """

    def __init__(self, name: str, pieces: Sequence[Piece], width: int, dtype: str, seed: int):
        super().__init__(name, sum(piece.num_rows for piece in pieces), width, dtype, seed)
        self._pieces = tuple(pieces)

    def rounding_rows(self, ids: tf.Tensor) -> tf.Tensor:
        ids = tf.cast(ids, tf.int64)
        offsets = tf.constant([piece.offset for piece in self._pieces], tf.int64)
        piece = tf.searchsorted(offsets, ids, side="right") - 1

        def of_piece(values: list[int]) -> tf.Tensor:
            return tf.gather(tf.constant(values, tf.int64), piece)

        position = ids + of_piece([piece.start - piece.offset for piece in self._pieces])
        order = [piece.permutation for piece in self._pieces]
        if all(permutation.is_identity for permutation in order):
            row = position
        else:
            size = of_piece([permutation.size for permutation in order])
            shifted = (position - of_piece([permutation.shift for permutation in order])) % size
            row = shifted * of_piece([permutation.inverse_factor for permutation in order]) % size
        return row + of_piece([piece.table_row for piece in self._pieces])


def _fill(array: RowArray, piece: Piece, initializer: Initializer, seed: int, width: int) -> None:
    """Writes a piece's initial rows, block by block of the whole table, so that they do not depend on the cut."""
    total = piece.table.vocabulary_size
    order = piece.permutation
    first, last = piece.start // BLOCK_ROWS, -(-piece.stop // BLOCK_ROWS)
    if not order.is_identity:
        first, last = 0, -(-total // BLOCK_ROWS)

    def write(block: tf.Tensor) -> list[tf.Tensor]:
        rows = initializer.block(seed, block, total, width)
        ids = block * BLOCK_ROWS + tf.range(BLOCK_ROWS, dtype=tf.int64)
        positions = ids if order.is_identity else (ids * order.factor + order.shift) % total
        here = (ids < total) & (positions >= piece.start) & (positions < piece.stop)
        chosen = tf.where(here)[:, 0]
        array.scatter_update(tf.gather(positions, chosen) - piece.start + piece.offset, tf.gather(rows, chosen))
        return [block + 1]

    @tf.function(autograph=False)
    def fill() -> None:
        start = tf.constant(first, tf.int64)
        tf.while_loop(lambda block: block < last, write, [start], parallel_iterations=1)

    if last - first == 1:
        write(tf.constant(first, tf.int64))  # a trace costs more than its only turn
    else:
        fill()


def server_placement(plan: ShardPlan, server: int, device: str, seed: int) -> tuple[LocalPlacement, list[int]]:
    """A placement of the rows that one server holds, and the stacks, by number, of which it holds any."""
    indices = [index for index, stack in enumerate(plan.stacks) if stack.rows[server]]
    stores = [ShardStore(plan.stacks[index], server, device, seed) for index in indices]
    kind = LocalPlacement if loader.library() is None else NativePlacement
    placement = kind(ShardingPlan(stacks=tuple(store.stack for store in stores), reasons=()), seed)
    placement.stores = list(stores)
    return placement, indices


def piece_slices(
    plan: ShardPlan, stores: Callable[[int, int], ShardStore | None], num_stacks: int
) -> Iterator[TableSlice]:
    """Every array as contiguous slices of logical arrays, one a server that holds some of its rows."""
    for index in range(num_stacks):
        by_table: dict[str, list[Piece]] = {}
        for piece in plan.stacks[index].pieces:
            by_table.setdefault(piece.table.name, []).append(piece)
        first = next(store for server in range(plan.num_servers) if (store := stores(index, server)) is not None)
        suffixes = [suffix for suffix, _ in first.arrays()]
        for suffix in suffixes:
            for pieces in by_table.values():
                held = [Held(piece, *_array_of(stores(index, piece.server), suffix)) for piece in pieces]
                if pieces[0].permutation.is_identity:
                    for one in held:
                        yield one.slice(suffix)
                else:
                    yield from Scattered(held).slices(suffix)


def _array_of(store: ShardStore | None, suffix: str) -> tuple[RowArray, str]:
    assert store is not None
    return dict(store.arrays())[suffix], store.device


class Held:
    """One piece of one array, read and written on its server."""

    def __init__(self, piece: Piece, array: RowArray, device: str):
        self.piece, self.array, self.device = piece, array, device

    def read(self, first: int, last: int) -> tf.Tensor:
        with tf.device(self.device):
            rows = self.array.read(self.piece.offset + first, self.piece.offset + last)
        return tf.identity(rows)

    def write(self, first: int, values: np.ndarray | tf.Tensor) -> None:
        check_rows(self.piece.table.name, values, values.shape[0], self.array.width)
        with tf.device(self.device):
            self.array.write(self.piece.offset + first, tf.convert_to_tensor(values, tf.float32))

    def rows_of(self, positions: tf.Tensor) -> tf.Tensor:
        """Which of some positions of the table are here: int64 places in `positions`."""
        return tf.where((positions >= self.piece.start) & (positions < self.piece.stop))[:, 0]

    def gather(self, positions: tf.Tensor) -> tf.Tensor:
        with tf.device(self.device):
            return self.array.gather(positions - self.piece.start + self.piece.offset)

    def scatter(self, positions: tf.Tensor, values: tf.Tensor) -> None:
        with tf.device(self.device):
            self.array.scatter_update(positions - self.piece.start + self.piece.offset, values)

    def slice(self, suffix: str) -> TableSlice:
        piece = self.piece
        return TableSlice(
            name=f"{piece.table.name}/{suffix}",
            total=piece.table.vocabulary_size,
            width=self.array.width,
            start=piece.start,
            stop=piece.stop,
            read=self.read,
            write=self.write,
            row_bytes=self.array.row_bytes,
            device=self.device,
        )


class Scattered:
    """One array whose rows are permuted over several servers, in the order of their ids.

    Rows are put together, and taken apart, on the device at hand; only it and the servers see them.
    """

    def __init__(self, held: list[Held]):
        self._held = held
        self._permutation = held[0].piece.permutation

    def _read(self, start: int, first: int, last: int) -> tf.Tensor:
        positions = self._permutation.positions(tf.range(start + first, start + last, dtype=tf.int64))
        places = [one.rows_of(positions) for one in self._held]
        parts = [one.gather(tf.gather(positions, here)) for one, here in zip(self._held, places, strict=True)]
        return tf.dynamic_stitch([tf.cast(here, tf.int32) for here in places], parts)

    def _write(self, start: int, first: int, values: np.ndarray | tf.Tensor) -> None:
        check_rows(self._held[0].piece.table.name, values, values.shape[0], self._held[0].array.width)
        rows = tf.convert_to_tensor(values, tf.float32)
        ids = tf.range(start + first, start + first + rows.shape[0], dtype=tf.int64)
        positions = self._permutation.positions(ids)
        for one in self._held:
            here = one.rows_of(positions)
            one.scatter(tf.gather(positions, here), tf.gather(rows, here))

    def slices(self, suffix: str) -> Iterator[TableSlice]:
        """Equal ranges of ids, one a server."""
        table, array, count = self._held[0].piece.table, self._held[0].array, len(self._held)
        bounds = [table.vocabulary_size * number // count for number in range(count + 1)]
        for one, start, stop in zip(self._held, bounds, bounds[1:], strict=False):
            yield TableSlice(
                name=f"{table.name}/{suffix}",
                total=table.vocabulary_size,
                width=array.width,
                start=start,
                stop=stop,
                read=functools.partial(self._read, start),
                write=functools.partial(self._write, start),
                row_bytes=array.row_bytes,
                device=one.device,
            )
