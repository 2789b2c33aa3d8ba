"""Columns as TFRecords of `tf.train.Example` by native code, where it may be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfdlrm.native import plain
from tfdlrm.native.plain import int64, pointer

_KINDS = {np.dtype(name): kind for kind, name in enumerate(("uint8", "uint16", "int32", "int64", "float32"))}
_TEXT = 5
_ARGUMENTS = (int64, *(pointer,) * 9, int64, int64, pointer, pointer, int64, pointer)
_BUFFER_BYTES = 2**22
_MOST_BUFFER_BYTES = 2**31  # a record of more is refused by its readers


class ExampleColumn(NamedTuple):
    """One feature of all rows.

    Args:
        name: of the feature.
        values: C-contiguous uint8, uint16, int32, int64 or float32 `[n]`; of texts uint8, all bytes one after another.
        width: values a row; None where `offsets` say it.
        offsets: int64 `[rows + 1]`, where each row's values begin.
        text_offsets: of texts: int64 `[n + 1]`, where each begins.
    """

    name: str
    values: np.ndarray
    width: int | None = 1
    offsets: np.ndarray | None = None
    text_offsets: np.ndarray | None = None


def can_write_examples() -> bool:
    """Whether `example_records` may be called."""
    return plain.functions() is not None


def example_records(columns: Sequence[ExampleColumn], num_rows: int) -> Iterator[memoryview]:
    """Records of the rows, one a row, in pieces that are good until the next one is asked for.

    A record is what `tf.train.Example.SerializeToString(deterministic=True)` gives, between the length and the two
    checksums of a TFRecord file.

    Args:
        columns: in any order.
        num_rows: of each.

    Raises:
        ValueError: arrays of other dtypes, or a row whose values are not there.

    Example:
        >>> b"".join(example_records([ExampleColumn("x", np.zeros(2, np.float32))], 2)).count(b"x")
        2
    """
    # protobuf's order in Python: of two names, one of which begins with the other, the longer one goes first
    columns = sorted(columns, key=lambda column: [*column.name.encode(), 256])
    arrays = [_checked(column) for column in columns]
    keys = [_key(column.name) for column in columns]
    kinds = np.array([_TEXT if own.text_offsets is not None else _KINDS[own.values.dtype] for own in columns], np.int32)
    num_values = [len(own.values) if own.text_offsets is None else len(own.text_offsets) - 1 for own in columns]
    widths = [-1 if own.width is None else own.width for own in columns]
    given = (
        kinds,
        _pointers([values for values, _, _ in arrays]),
        np.array(num_values, np.int64),
        np.array(widths, np.int64),
        _pointers([offsets for _, offsets, _ in arrays]),
        _pointers([texts for _, _, texts in arrays]),
        np.array([values.nbytes for values, _, _ in arrays], np.int64),
        _pointers(keys),
        np.array([len(key) for key in keys], np.int64),
    )
    for own, (_, offsets, _) in zip(columns, arrays, strict=True):
        if own.width is None and len(offsets) != num_rows + 1:
            raise ValueError(
                f"feature {own.name!r}: {len(offsets)} offsets for {num_rows} rows, and one more is needed."
            )
    function = plain.function("tfdlrm_write_examples", _ARGUMENTS)
    assert function is not None, "asked before whether it can"
    sizes, done = np.zeros(2 * len(columns), np.int64), np.zeros(1, np.int64)
    buffer = np.empty(_BUFFER_BYTES, np.uint8)
    row = 0
    while row < num_rows:
        given_pointers = (array.ctypes.data for array in given)
        tail = (row, num_rows, sizes.ctypes.data, buffer.ctypes.data, len(buffer), done.ctypes.data)
        size = function(len(columns), *given_pointers, *tail)
        if size < 0:
            raise ValueError(f"rows {row} to {num_rows}: values of a feature are not there. The columns are damaged.")
        if not done[0]:
            if len(buffer) >= _MOST_BUFFER_BYTES:
                raise ValueError(f"row {row} takes more than {_MOST_BUFFER_BYTES:,} bytes as a tf.train.Example.")
            buffer = np.empty(2 * len(buffer), np.uint8)
            continue
        row += int(done[0])
        yield buffer.data[:size]


def _checked(column: ExampleColumn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, offsets and offsets of texts; empty where there are none."""
    nothing = np.zeros(0, np.int64)
    offsets = nothing if column.offsets is None else column.offsets
    texts = nothing if column.text_offsets is None else column.text_offsets
    is_known = column.values.dtype in _KINDS and (column.text_offsets is None or column.values.dtype == np.uint8)
    for array in (column.values, offsets, texts):
        if not array.flags.c_contiguous or array.ndim != 1:
            raise ValueError(f"feature {column.name!r}: an array of shape {array.shape}, and a flat one is needed.")
    if not is_known or offsets.dtype != np.int64 or texts.dtype != np.int64:
        raise ValueError(
            f"feature {column.name!r}: {column.values.dtype} is no kind of values, or offsets are no int64."
        )
    if (column.width is None) == (column.offsets is None) or (column.width is not None and column.width < 0):
        raise ValueError(f"feature {column.name!r}: give either width or offsets.")
    return column.values, offsets, texts


def _key(name: str) -> np.ndarray:
    """Field 1 of an entry of a map: its key."""
    text, head = name.encode(), bytearray(b"\x0a")
    size = len(text)
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return np.frombuffer(bytes(head) + text, np.uint8)


def _pointers(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([array.ctypes.data for array in arrays], np.uintp)
