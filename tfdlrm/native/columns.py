"""Columns by native code where it may be used: rows gathered from them, and dictionaries of their values."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.native import plain
from tfdlrm.native.plain import int32, int64, pointer

_KINDS = {np.dtype(name): kind for kind, name in enumerate(("uint8", "uint16", "int32", "int64", "float32"))}
_GATHER = (int64, pointer, pointer, int32, int64, int64, int64, pointer, pointer, int32, pointer, int64)
_OUT_KINDS = {np.dtype(name) for name in ("int32", "int64", "float32")}


class OutOfRangeError(ValueError):
    """A column holds a value beyond its limit.

    Args:
        position: of the rows asked for, the one that holds it.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the row asked for at place {position} holds a value beyond the column's limit")
        self.position = position


class PartedColumn:
    """One column whose rows lie in several arrays.

    Args:
        parts: C-contiguous arrays [rows] or [rows, width], all uint8, uint16, int32, int64 or float32.
        limit: of integers: each must be in [0, limit), which is checked as it is read; None for any.

    Raises:
        ValueError: a part is of another dtype or width.

    Example:
        >>> column = PartedColumn([np.array([1, 2], np.uint8), np.array([3], np.uint8)])
        >>> out = np.empty(3, np.int32)
        >>> column.take(np.array([1, 0, 1], np.int32), np.array([0, 1, 0], np.int32), out)
        >>> out.tolist()
        [3, 2, 3]
    """

    def __init__(self, parts: Sequence[np.ndarray], limit: int | None = None) -> None:
        for part in parts:
            if part.dtype not in _KINDS or part.dtype != parts[0].dtype or not part.flags.c_contiguous:
                raise ValueError(
                    f"PartedColumn: a part has dtype {part.dtype}, the first has {parts[0].dtype}. Give contiguous "
                    f"arrays of one of {', '.join(map(str, _KINDS))}."
                )
            if part.shape[1:] != parts[0].shape[1:]:
                raise ValueError(
                    f"PartedColumn: rows of a part have shape {part.shape[1:]}, of the first {parts[0].shape[1:]}."
                )
        if limit is not None and parts[0].dtype == np.float32:
            raise ValueError("PartedColumn: a limit is of integers, and the parts are float32.")
        self._parts = list(parts)
        self._limit = limit
        self.width = int(np.prod(parts[0].shape[1:], dtype=np.int64))
        self._rows = np.array([len(part) for part in parts], np.int64)
        self._pointers = np.array([part.ctypes.data for part in parts], np.uintp)

    def take(self, part_of: np.ndarray, row_of: np.ndarray, out: np.ndarray) -> None:
        """Row `row_of[i]` of part `part_of[i]` -> `out[i]`.

        Args:
            part_of, row_of: C-contiguous int32 [n].
            out: int32, int64 or float32 [n] or [n, width], float32 for float32; its rows may lie apart, but not their
                entries.

        Raises:
            IndexError: a row is not there.
            OutOfRangeError: an integer is not in [0, limit).
            ValueError: arguments of other shapes or dtypes.
        """
        for places in (part_of, row_of):
            if places.dtype != np.int32 or places.shape != (len(out),) or not places.flags.c_contiguous:
                raise ValueError("PartedColumn: part_of and row_of need int32 [n], as many as out has rows.")
        to_float = out.dtype == np.float32
        apart = out.size and out.ndim > 1 and out.shape[1] > 1 and out.strides[1] != out.itemsize
        if out.size != len(out) * self.width or out.dtype not in _OUT_KINDS or apart or not out.flags.writeable:
            raise ValueError(f"PartedColumn: out is {out.dtype} {out.shape}, need [{len(out)}, {self.width}].")
        if self._parts[0].dtype == np.float32 and not to_float:
            raise ValueError(f"PartedColumn: the parts are float32, and out is {out.dtype}.")
        if not len(out):
            return  # such an array has no strides
        function = plain.function("tfdlrm_gather_rows", _GATHER)
        if function is None:
            self._take_plainly(part_of, row_of, out)
            return
        code = function(
            len(self._parts),
            self._pointers.ctypes.data,
            self._rows.ctypes.data,
            _KINDS[self._parts[0].dtype],
            self.width,
            -1 if self._limit is None else self._limit,
            len(out),
            part_of.ctypes.data,
            row_of.ctypes.data,
            _KINDS[out.dtype],
            out.ctypes.data,
            out.strides[0] // out.itemsize,
        )
        if code > 0:
            raise OutOfRangeError(code - 1)
        if code:
            raise IndexError("PartedColumn: a row is not there.")

    def copy(self, part: int, start: int, stop: int, out: np.ndarray) -> None:
        """Rows [start, stop) of one part -> `out`, as they stand there.

        Args:
            part, start, stop: start < stop, all of them rows of the part.
            out: [stop - start] or [stop - start, width].

        Raises:
            OutOfRangeError: an integer is not in [0, limit).
        """
        rows = self._parts[part][start:stop]
        if self._limit is not None and not 0 <= rows.min() <= rows.max() < self._limit:
            beyond = (rows < 0) | (rows >= self._limit)
            raise OutOfRangeError(int(np.argmax(beyond.reshape(len(rows), -1).any(axis=1))))
        out[...] = rows.reshape(out.shape)

    def _take_plainly(self, part_of: np.ndarray, row_of: np.ndarray, out: np.ndarray) -> None:
        there = (part_of >= 0) & (part_of < len(self._parts)) & (row_of >= 0)
        if not there.all() or (row_of >= self._rows[part_of]).any():
            raise IndexError("PartedColumn: a row is not there.")
        for number, part in enumerate(self._parts):
            mine = np.flatnonzero(part_of == number)
            rows = part[row_of[mine]].reshape(len(mine), self.width)
            if self._limit is not None:
                beyond = ((rows < 0) | (rows >= self._limit)).any(axis=1)
                if beyond.any():
                    raise OutOfRangeError(int(mine[np.argmax(beyond)]))
            out[mine] = rows.reshape(len(mine), *out.shape[1:])


class BeyondBudgetError(Exception):
    """A dictionary would take more memory than it may."""


class Dictionary:
    """Distinct whole numbers in order of first appearance; see `new_dictionary`.

    Args:
        dtype: uint32 or int64.
        budget: bytes it may take.

    Example:
        >>> dictionary = Dictionary(np.int64, 2**20)
        >>> dictionary.add(np.array([7, 3, 7])).tolist(), dictionary.values().tolist()
        ([0, 1, 0], [7, 3])
    """

    def __init__(self, dtype: np.dtype | type, budget: int) -> None:
        self._dtype = np.dtype(dtype)
        self._handle = self._call("new", (int64,), pointer)(budget)
        if not self._handle:
            raise MemoryError("Dictionary: there is no memory.")
        weakref.finalize(self, self._call("free", (pointer,), None), self._handle)

    def __len__(self) -> int:
        return int(self._call("size", (pointer,))(self._handle))

    def add(self, keys: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """int32 [n]: places of the keys, new ones at the end.

        Args:
            keys: [n] of the dictionary's dtype.
            counts: int64, an entry for each place that there may be then; how often keys occur is added to it.

        Raises:
            BeyondBudgetError: it would take more memory; keys before that were added.
        """
        keys = np.ascontiguousarray(keys, self._dtype)
        places = np.empty(len(keys), np.int32)
        if counts is not None and (counts.dtype != np.int64 or len(counts) < len(self) + len(keys)):
            raise ValueError(f"Dictionary: counts have dtype {counts.dtype} and {len(counts)} entries.")
        add = self._call("add", (pointer, pointer, int64, pointer, pointer))
        tallied = None if counts is None else counts.ctypes.data
        if add(self._handle, keys.ctypes.data, len(keys), places.ctypes.data, tallied):
            raise BeyondBudgetError
        return places

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int32 [n]: places of the keys, -1 for those that are not there."""
        keys = np.ascontiguousarray(keys, self._dtype)
        places = np.empty(len(keys), np.int32)
        find = self._call("find", (pointer, pointer, int64, pointer), None)
        find(self._handle, keys.ctypes.data, len(keys), places.ctypes.data)
        return places

    def values(self) -> np.ndarray:
        """[places]: the key of each place."""
        values = np.empty(len(self), self._dtype)
        self._call("values", (pointer, pointer), None)(self._handle, values.ctypes.data)
        return values

    def _call(self, what: str, arguments: tuple[type, ...], result: type | None = int64) -> Any:
        bits = 8 * self._dtype.itemsize
        return plain.function(f"tfdlrm_dictionary{bits}_{what}", arguments, result)


def new_dictionary(dtype: np.dtype | type, budget: int) -> Dictionary | None:
    """An empty dictionary; None where native code may not be used, or for another dtype than uint32 and int64."""
    if np.dtype(dtype) not in (np.dtype(np.uint32), np.dtype(np.int64)) or plain.functions() is None:
        return None
    return Dictionary(dtype, budget)
