"""Columns to packed rows, by native code where it may be used."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.native import loader

_KINDS = {np.dtype(name): kind for kind, name in enumerate(("uint8", "uint16", "int32", "int64", "float32"))}
_PIECE_ROWS = 2**12  # turned at once without native code


class RowPacker:
    """Writes rows of columns side by side.

    Args:
        columns: C-contiguous arrays [rows] or [rows, width] of uint8, uint16, int32, int64 or float32, equally long.

    Raises:
        ValueError: a column is of another dtype or form, or they are not equally long.

    Example:
        >>> packer = RowPacker([np.array([1, 2], np.uint8), np.array([[3, 4], [5, 6]], np.int32)])
        >>> out = np.empty((2, 3), np.int32)
        >>> packer.pack(0, out)
        >>> out.tolist()
        [[1, 3, 4], [2, 5, 6]]
    """

    def __init__(self, columns: Sequence[np.ndarray]) -> None:
        for column in columns:
            if column.dtype not in _KINDS or column.ndim not in (1, 2) or not column.flags.c_contiguous:
                raise ValueError(
                    f"RowPacker: a column has dtype {column.dtype} and shape {column.shape}. Give contiguous columns "
                    f"of {', '.join(map(str, _KINDS))}."
                )
        self._columns = list(columns)
        self.num_rows = len(columns[0]) if columns else 0
        if any(len(column) != self.num_rows for column in columns):
            raise ValueError(f"RowPacker: columns have {sorted({len(column) for column in columns})} rows.")
        self._widths = np.array([column[0:1].size if self.num_rows else 1 for column in columns], np.int64)
        self.width = int(self._widths.sum())
        self._kinds = np.array([_KINDS[column.dtype] for column in columns], np.int32)
        self._pointers = np.array([column.ctypes.data for column in columns], np.uintp)

    def pack(self, start: int, out: np.ndarray) -> None:
        """Rows [start, start + len(out)) -> out.

        Args:
            start: the first row.
            out: C-contiguous int32, int64 or float32 [rows, width].

        Raises:
            IndexError: the rows are not there.
            ValueError: `out` is not as it should be.
        """
        if not self._columns:
            return
        if start < 0 or start + len(out) > self.num_rows:
            raise IndexError(f"RowPacker: rows {start} to {start + len(out)} of {self.num_rows}.")
        if out.shape[1:] != (self.width,) or out.dtype not in _KINDS or not out.flags.c_contiguous:
            raise ValueError(f"RowPacker: out has dtype {out.dtype} and shape {out.shape}, need [rows, {self.width}].")
        if not len(out):
            return
        function = _function()
        if function is None:
            self._pack_pieces(start, out)
            return
        code = function(
            len(self._columns),
            self._pointers.ctypes.data,
            self._kinds.ctypes.data,
            self._widths.ctypes.data,
            self.num_rows,
            start,
            len(out),
            _KINDS[out.dtype],
            out.ctypes.data,
        )
        if code:
            raise ValueError(f"RowPacker: out has dtype {out.dtype}. Give int32, int64 or float32.")

    def _pack_pieces(self, start: int, out: np.ndarray) -> None:
        for low in range(0, len(out), _PIECE_ROWS):
            piece = out[low : low + _PIECE_ROWS]
            at = 0
            for column, width in zip(self._columns, self._widths.tolist(), strict=True):
                own = column[start + low : start + low + len(piece)]
                piece[:, at : at + width] = own.reshape(len(own), width)
                at += width


class PartedColumn:
    """One column whose rows lie in several arrays.

    Args:
        parts: C-contiguous arrays [rows] or [rows, width] of one dtype, as `RowPacker` takes them.

    Example:
        >>> column = PartedColumn([np.array([1, 2], np.uint8), np.array([3], np.uint8)])
        >>> out = np.empty(3, np.int32)
        >>> column.take(np.array([1, 0, 1], np.int32), np.array([0, 1, 0], np.int32), out)
        >>> out.tolist()
        [3, 2, 3]
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        for part in parts:
            if part.dtype not in _KINDS or part.dtype != parts[0].dtype or not part.flags.c_contiguous:
                raise ValueError(f"PartedColumn: a part has dtype {part.dtype}, the first has {parts[0].dtype}.")
        self._parts = list(parts)
        self.width = int(np.prod(parts[0].shape[1:], dtype=np.int64))
        self._rows = np.array([len(part) for part in parts], np.int64)
        self._pointers = np.array([part.ctypes.data for part in parts], np.uintp)

    def take(self, part_of: np.ndarray, row_of: np.ndarray, out: np.ndarray) -> None:
        """Row `row_of[i]` of part `part_of[i]` -> `out[i]`.

        Args:
            part_of, row_of: C-contiguous int32 [n].
            out: int32, int64 or float32 [n] or [n, width]; its rows may lie apart, but not their entries.

        Raises:
            IndexError: a row is not there.
        """
        function = _gather_function()
        if function is None:
            for number, part in enumerate(self._parts):
                mine = part_of == number
                out[mine] = part[row_of[mine]]
            return
        if part_of.dtype != np.int32 or row_of.dtype != np.int32 or not len(part_of) == len(row_of) == len(out):
            raise ValueError("PartedColumn: part_of and row_of need int32 [n], as many as out has rows.")
        code = function(
            len(self._parts),
            self._pointers.ctypes.data,
            self._rows.ctypes.data,
            _KINDS[self._parts[0].dtype],
            self.width,
            len(out),
            part_of.ctypes.data,
            row_of.ctypes.data,
            _KINDS[out.dtype],
            out.ctypes.data,
            out.strides[0] // out.itemsize,
        )
        if code:
            raise IndexError("PartedColumn: a row is not there, or out is not int32, int64 or float32.")


def _function() -> Any | None:
    library = loader.functions()
    return None if library is None else _typed(library)


def _gather_function() -> Any | None:
    library = loader.functions()
    return None if library is None else _typed_gather(library)


@functools.cache
def _typed_gather(library: ctypes.CDLL) -> Any:
    function = library.tfdlrm_gather_rows
    pointer, size, kind = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [size, pointer, pointer, kind, size, size, pointer, pointer, kind, pointer, size]
    function.restype = size
    return function


@functools.cache
def _typed(library: ctypes.CDLL) -> Any:
    function = library.tfdlrm_pack_rows
    pointer, size, kind = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [size, pointer, pointer, pointer, size, size, size, kind, pointer]
    function.restype = size
    return function
