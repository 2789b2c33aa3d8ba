"""Rows of plain text, read and written by native code where it may be used."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from tfdlrm.native import plain
from tfdlrm.native.plain import int64, pointer

_CRITEO_LINES = (int64, int64, int64, pointer, pointer, pointer, pointer)
_CRITEO_ROWS = (ctypes.c_char_p, int64, int64, int64, int64, pointer, pointer, pointer)


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
    function = plain.function("tfdlrm_criteo_rows", _CRITEO_ROWS)
    if function is None or not text:
        return None
    rows = text.count(b"\n")
    labels = np.empty(rows, np.float64)
    dense = np.empty((num_dense, rows), np.float64)
    tokens = np.empty((num_hex, rows), np.uint32)
    columns = labels.ctypes.data, dense.ctypes.data, tokens.ctypes.data
    found = function(text, len(text), num_dense, num_hex, rows, *columns)
    return CriteoRows(labels=labels, dense=dense, tokens=tokens) if found == rows else None


def criteo_lines(labels: np.ndarray, counts: np.ndarray, tokens: np.ndarray) -> bytes | None:
    """The text of rows in Criteo's format, each line with its end; None without native code.

    Args:
        labels: uint8 [n], 0 or 1.
        counts: int32 [n, num_counts], below 0 where the cell is empty.
        tokens: uint32 [n, num_tokens], written with 8 hex digits; 0 where the cell is empty.
    """
    function = plain.function("tfdlrm_criteo_lines", _CRITEO_LINES)
    if function is None:
        return None
    labels = np.ascontiguousarray(labels, np.uint8)
    counts, tokens = np.ascontiguousarray(counts, np.int32), np.ascontiguousarray(tokens, np.uint32)
    out = np.empty(len(labels) * (2 + 11 * counts.shape[1] + 9 * tokens.shape[1]), np.uint8)
    columns = labels.ctypes.data, counts.ctypes.data, tokens.ctypes.data
    written = function(len(labels), counts.shape[1], tokens.shape[1], *columns, out.ctypes.data)
    return out[:written].tobytes()
