"""Columns by native code where it may be used: rows gathered from them, and dictionaries of their values."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.native import plain
from tfdlrm.native.plain import int32, int64, pointer

_KINDS = {np.dtype(name): kind for kind, name in enumerate(("uint8", "uint16", "int32", "int64", "float32"))}
_GATHER = (int64, pointer, pointer, int32, int64, int64, pointer, pointer, int32, pointer, int64)


class PartedColumn:
    """One column whose rows lie in several arrays.

    Args:
        parts: C-contiguous arrays [rows] or [rows, width], all uint8, uint16, int32, int64 or float32.

    Raises:
        ValueError: a part is of another dtype.

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
                raise ValueError(
                    f"PartedColumn: a part has dtype {part.dtype}, the first has {parts[0].dtype}. Give contiguous "
                    f"arrays of one of {', '.join(map(str, _KINDS))}."
                )
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
        function = plain.function("tfdlrm_gather_rows", _GATHER)
        if function is None:
            for number, part in enumerate(self._parts):
                mine = part_of == number
                out[mine] = part[row_of[mine]].reshape(-1, *out.shape[1:])
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
