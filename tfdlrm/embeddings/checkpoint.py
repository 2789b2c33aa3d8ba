"""Tables on disk: every stored array as slices of one logical tensor, which any plan can read back.

`save_tables` writes TensorFlow's own checkpoint format (a tensor bundle). Each array, `item/rows` or
`item/accumulator`, is one tensor `[V, width]` of that bundle, written as contiguous row ranges. A range is read
back by its row numbers, so it makes no difference how the rows were divided when they were written: fused or not,
over one process or seven. Rows move in chunks of at most `CHUNK_BYTES`; a table is never held a second time.
Servers that see the folder write and read their slices themselves, side by side.

Every chunk carries a CRC-32C that TensorFlow checks when the chunk is read.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.embeddings.placement.base import TableSlice
from tfdlrm.embeddings.tables import EmbeddingTables

# Large enough that a write is not dominated by its call, small beside any table that matters.
CHUNK_BYTES = 64 * 2**20
ITERATIONS = "iterations"
WEIGHTS = ("rows", "pooling_weights")
_FLOAT_BYTES = 4

Result = TypeVar("Result")


class DamagedCheckpointError(RuntimeError):
    """Files of a checkpoint are missing, truncated or changed. Another checkpoint may be whole."""


class Chunk(NamedTuple):
    """Rows `[start, stop)` of a slice, counted from the beginning of its logical array."""

    piece: TableSlice
    start: int
    stop: int

    @property
    def spec(self) -> str:
        """For SaveV2 and RestoreV2: the whole array's shape, then first row and count, first column and count."""
        total, width = self.piece.total, self.piece.width
        return f"{total} {width} {self.start},{self.stop - self.start}:0,{width}"

    @property
    def num_bytes(self) -> int:
        return (self.stop - self.start) * self.piece.width * _FLOAT_BYTES


def is_slot(array: str) -> bool:
    """Whether an array is state of a row optimizer, and not weights of the model."""
    return array.rpartition("/")[2] not in WEIGHTS


def save_tables(tables: EmbeddingTables, prefix: str | os.PathLike[str], *, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Writes all rows, slots and pooling weights, and the number of updates.

    Args:
        tables: built tables.
        prefix: of the files: `<prefix>.index` and `<prefix>.data-?????-of-?????`.
        chunk_bytes: upper limit of what is copied at a time (a single row may be larger).

    Raises:
        OSError: the disk is full, read-only or gone; files may be left behind.
        tf.errors.OpError: a server that holds rows is gone.

    Example:
        >>> save_tables(tables, "checkpoint/tables")
        >>> restore_tables(tables_of_another_plan, "checkpoint/tables")
    """
    tables.build()
    prefix = os.path.abspath(prefix)  # as every process finds it
    iterations = {ITERATIONS: tf.convert_to_tensor(tables.iterations)}

    def write(number: int, slices: list[TableSlice]) -> list[str]:
        if number == 0:
            return write_parts(prefix, slices, scalars=iterations, chunk_bytes=chunk_bytes)
        return write_parts(f"{os.fspath(prefix)}.server-{number}", slices, chunk_bytes=chunk_bytes)

    parts = _side_by_side(tables.slices(), functools.partial(_can_write, prefix), write)
    merge_parts(list(itertools.chain.from_iterable(parts)), prefix)


def write_parts(
    prefix: str | os.PathLike[str],
    slices: Iterable[TableSlice],
    *,
    scalars: dict[str, tf.Tensor] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> list[str]:
    """Writes slices that this process holds, as bundles of their own, to be joined by `merge_parts`.

    Args:
        prefix: of the parts' files; processes that write side by side need different ones.
        slices: any contiguous pieces of the arrays.
        scalars: further values, written once by one process.
        chunk_bytes: as in `save_tables`.

    Returns:
        Prefixes of the parts.
    """
    parts: list[str] = []
    for group in _groups(_chunks(slices, chunk_bytes), chunk_bytes):
        names = [chunk.piece.name for chunk in group]
        rows = [chunk.piece.read(chunk.start - chunk.piece.start, chunk.stop - chunk.piece.start) for chunk in group]
        parts.append(_write_part(prefix, len(parts), names, [chunk.spec for chunk in group], rows))
    if scalars:
        parts.append(_write_part(prefix, len(parts), list(scalars), [""] * len(scalars), list(scalars.values())))
    return parts


def _write_part(
    prefix: str | os.PathLike[str], number: int, names: list[str], specs: list[str], values: list[tf.Tensor]
) -> str:
    part = f"{os.fspath(prefix)}.part-{number:05d}"
    _as_os_error(
        part,
        lambda: tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=specs, tensors=values),
    )
    return part


def merge_parts(parts: Sequence[str], prefix: str | os.PathLike[str]) -> None:
    """Makes one bundle of the parts, by renaming their data files. Every part must be complete.

    Args:
        parts: prefixes from `write_parts`, of all processes.
        prefix: of the result.
    """
    _as_os_error(
        os.fspath(prefix),
        lambda: tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=list(parts), destination_prefix=os.fspath(prefix), delete_old_dirs=False
        ),
    )


def saved_shapes(prefix: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Array name -> `(V, width)` of everything that was saved. Reads the index only.

    Raises:
        DamagedCheckpointError: there is no readable index.
    """
    try:
        shapes = tf.train.load_checkpoint(os.fspath(prefix)).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        raise DamagedCheckpointError(f"{os.fspath(prefix)}: the index cannot be read: {error}") from error
    return {name: (shape[0], shape[1]) for name, shape in sorted(shapes.items()) if name != ITERATIONS}


def verify_saved(prefix: str | os.PathLike[str], *, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Reads everything that was saved, a chunk at a time: TensorFlow compares the CRC of each.

    Raises:
        DamagedCheckpointError: files or rows are missing or damaged.
    """
    for name, (total, width) in saved_shapes(prefix).items():
        whole = TableSlice(name, total, width, 0, total, None, None, width * _FLOAT_BYTES)
        for chunk in _chunks([whole], chunk_bytes):
            _read(prefix, [name], [chunk.spec], tf.float32)
    _read(prefix, [ITERATIONS], [""], tf.int64)


def restore_tables(
    tables: EmbeddingTables,
    prefix: str | os.PathLike[str],
    *,
    weights_only: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Reads what `save_tables` wrote under any plan.

    Nothing is written to the tables before names and shapes were compared.

    Args:
        tables: of the same model; their plan may differ from the one that was saved.
        prefix: as in `save_tables`.
        weights_only: leave the state of the row optimizers, and the count of their updates, as it is, whatever the
            checkpoint holds of it: for evaluation, or to go on with another row optimizer.
        chunk_bytes: as in `save_tables`.

    Raises:
        ValueError: of another model or row optimizer; names table or slot, and both shapes.
        DamagedCheckpointError: files or rows are missing or damaged; the tables are then partly written.
    """
    tables.build()
    prefix = os.path.abspath(prefix)
    slices = [piece for piece in tables.slices() if not (weights_only and is_slot(piece.name))]
    saved = saved_shapes(prefix)
    if weights_only:
        saved = {name: shape for name, shape in saved.items() if not is_slot(name)}
    wanted = {piece.name: (piece.total, piece.width) for piece in slices}
    _refuse_another_model(os.fspath(prefix), saved, wanted)
    _refuse_another_optimizer(os.fspath(prefix), saved, wanted)

    def read(_: int, own: list[TableSlice]) -> None:
        for group in _groups(_chunks(own, chunk_bytes), chunk_bytes):
            rows = _read(prefix, [chunk.piece.name for chunk in group], [chunk.spec for chunk in group], tf.float32)
            for chunk, values in zip(group, rows, strict=True):
                chunk.piece.write(chunk.start - chunk.piece.start, values)

    _side_by_side(slices, functools.partial(_can_read, prefix), read)
    if not weights_only:
        tables.iterations.assign(_read(prefix, [ITERATIONS], [""], tf.int64)[0])


def _read(prefix: str | os.PathLike[str], names: list[str], specs: list[str], dtype: tf.DType) -> list[tf.Tensor]:
    try:
        return tf.raw_ops.RestoreV2(
            prefix=os.fspath(prefix), tensor_names=names, shape_and_slices=specs, dtypes=[dtype] * len(names)
        )
    except tf.errors.OpError as error:
        # of one model, by now, so whatever is missing has been lost
        raise DamagedCheckpointError(
            f"{os.fspath(prefix)}: {quoted(names[0])} and {len(names) - 1} more cannot be read: {error.message}"
        ) from error


def _refuse_another_model(prefix: str, saved: dict[str, tuple[int, int]], wanted: dict[str, tuple[int, int]]) -> None:
    saved_weights = {name: shape for name, shape in saved.items() if not is_slot(name)}
    wanted_weights = {name: shape for name, shape in wanted.items() if not is_slot(name)}
    for name, shape in wanted_weights.items():
        table, _, kind = name.rpartition("/")
        if name not in saved_weights:
            held = sorted({other.rpartition("/")[0] for other in saved_weights})
            raise ValueError(
                f"{prefix}: table {quoted(table)}: no {kind} {list(shape)} in the checkpoint, whose tables are {held}. "
                "It is of another model: restore it into the config it was saved with."
            )
        if saved_weights[name] != shape:
            raise ValueError(
                f"{prefix}: table {quoted(table)}: {kind} were saved as {list(saved_weights[name])}, the model's are "
                f"{list(shape)}. Use the vocabulary_size and embedding_dim that it was saved with."
            )
    for name, shape in saved_weights.items():
        if name not in wanted_weights:
            table, _, kind = name.rpartition("/")
            raise ValueError(
                f"{prefix}: table {quoted(table)}: its {kind} {list(shape)} in the checkpoint "
                "have no place in this model. "
                "It is of another model: restore it into the config it was saved with."
            )


def _refuse_another_optimizer(
    prefix: str, saved: dict[str, tuple[int, int]], wanted: dict[str, tuple[int, int]]
) -> None:
    for name in sorted(set(saved) | set(wanted)):
        if saved.get(name) == wanted.get(name):
            continue
        table, _, slot = name.rpartition("/")
        was, now = (list(shapes[name]) if name in shapes else "absent" for shapes in (saved, wanted))
        raise ValueError(
            f"{prefix}: table {quoted(table)}: row optimizer slot {quoted(slot)} was saved as "
            f"{was}, the model's is {now}. Use the "
            "row optimizer that it was saved with, or restore with weights_only=True and begin its state anew."
        )


def _side_by_side(
    slices: Iterable[TableSlice], can_work: Callable[[str], bool], work: Callable[[int, list[TableSlice]], Result]
) -> list[Result]:
    """Does `work(number, slices)` for each device that holds rows, on it and at a time; what a device cannot, here."""
    able: dict[str | None, bool] = {None: False}
    by_place: dict[str | None, list[TableSlice]] = {None: []}  # something here, if only the scalars
    for piece in slices:
        if piece.device not in able:
            able[piece.device] = can_work(str(piece.device))
        by_place.setdefault(piece.device if able[piece.device] else None, []).append(piece)

    def on_device(number: int, place: str | None) -> Result:
        with contextlib.nullcontext() if place is None else tf.device(place):
            return work(number, by_place[place])

    if len(by_place) == 1:
        return [on_device(0, None)]
    with ThreadPoolExecutor(len(by_place)) as pool:
        return list(pool.map(on_device, itertools.count(), by_place))


def _can_write(prefix: str, device: str) -> bool:
    """Whether a device's process reads and writes the folder that this one does; says once where it does not."""
    mark, answer = (Path(f"{prefix}.{kind}-{secrets.token_hex(8)}") for kind in ("mark", "answer"))
    try:
        mark.write_text(answer.name, encoding="utf-8")
        if not _finds(mark, device):
            return False  # it writes nothing where it does not see this folder
        with tf.device(device):
            tf.io.write_file(str(answer), mark.name)
        return answer.read_text(encoding="utf-8") == mark.name
    except (tf.errors.PermissionDeniedError, tf.errors.FailedPreconditionError, OSError):
        _say_apart(device, prefix)
        return False
    finally:
        mark.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def _can_read(prefix: str, device: str) -> bool:
    """Whether a device's process finds there what this one does; says once where it does not."""
    return _finds(Path(f"{prefix}.index"), device)


def _finds(file: Path, device: str) -> bool:
    try:
        with tf.device(device):
            theirs: tf.Tensor = tf.io.read_file(str(file))
        if theirs.numpy() == file.read_bytes():
            return True
    except (tf.errors.NotFoundError, tf.errors.PermissionDeniedError, FileNotFoundError):
        pass
    _say_apart(device, str(file))
    return False


def _say_apart(device: str, path: str) -> None:
    if device not in _APART:
        _APART.add(device)
        said = f"{device} does not share {os.path.dirname(path)}: its rows of checkpoints are moved by this process."
        print(said, file=sys.stderr, flush=True)


_APART: set[str] = set()


def _chunks(slices: Iterable[TableSlice], chunk_bytes: int) -> Iterator[Chunk]:
    """Row ranges of at most `chunk_bytes`, or of one row."""
    for piece in slices:
        for start, stop in piece.ranges(chunk_bytes):
            yield Chunk(piece, start, stop)


def _groups(chunks: Iterable[Chunk], limit: int) -> Iterator[list[Chunk]]:
    """Chunks that are moved together: at most `limit` bytes, or a single one."""
    group: list[Chunk] = []
    held = 0
    for chunk in chunks:
        if group and held + chunk.num_bytes > limit:
            yield group
            group, held = [], 0
        group.append(chunk)
        held += chunk.num_bytes
    if group:
        yield group


def _as_os_error(path: str, operation: Callable[[], object]) -> None:
    """TensorFlow's file errors as the OSError that they are."""
    try:
        operation()
    except (tf.errors.UnavailableError, tf.errors.AbortedError):
        raise  # a process that is gone, and not a disk
    except tf.errors.OpError as error:
        raise OSError(f"{path}: cannot be written: {error.message}") from error
