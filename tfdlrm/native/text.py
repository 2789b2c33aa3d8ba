"""Rows of plain text, parsed by native code where it may be used."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfdlrm.native import loader


@dataclass(frozen=True, kw_only=True)
class CriteoRows:
    """Rows in Criteo's format as numbers.

    Args:
        labels: float64 [rows].
        dense: float64 [num_dense, rows], NaN where a cell is empty.
        tokens: uint32 [num_hex, rows], 0 where a cell is empty.
    """

    labels: np.ndarray
    dense: np.ndarray
    tokens: np.ndarray


def criteo_rows(text: bytes, num_dense: int, num_hex: int) -> CriteoRows | None:
    """The rows of whole lines, if every one is as the format has it; None if not, or without native code.

    Args:
        text: lines of a label (0 or 1), `num_dense` whole numbers of at most 15 digits, and `num_hex` hex numbers of at
            most 8 digits; numbers may be missing. A newline after each line, also the last.
        num_dense, num_hex: columns.
    """
    function = _function()
    if function is None or not text:
        return None
    rows = text.count(b"\n")
    labels = np.empty(rows, np.float64)
    dense = np.empty((num_dense, rows), np.float64)
    tokens = np.empty((num_hex, rows), np.uint32)
    found = function(
        text, len(text), num_dense, num_hex, rows, labels.ctypes.data, dense.ctypes.data, tokens.ctypes.data
    )
    return CriteoRows(labels=labels, dense=dense, tokens=tokens) if found == rows else None


def _function() -> Any | None:
    library = loader.functions()
    return None if library is None else _typed(library)


@functools.cache
def _typed(library: ctypes.CDLL) -> Any:
    function = library.tfdlrm_criteo_rows
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_char_p, size, size, size, size, pointer, pointer, pointer]
    function.restype = size
    return function
