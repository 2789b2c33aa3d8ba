"""Numbers that are read and written by windows: in a file, so that none of them count as memory in use, or held."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class HeldArray:
    """A one-dimensional array of zeros in memory, with what of `DiskArray` needs no windows.

    Args:
        size: number of entries.
        dtype: of each.
    """

    def __init__(self, size: int, dtype: np.dtype | type) -> None:
        self._values = np.zeros(size, dtype)
        self.dtype = self._values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Entries [start, stop), as an array of their own."""
        return self._values[start:stop].copy()

    def write(self, start: int, values: np.ndarray) -> None:
        """Replace the entries from `start` on."""
        self._values[start : start + len(values)] = values

    def remove(self) -> None:
        """Nothing: there is no file."""


class DiskArray:
    """A one-dimensional array on disk. (A mapped file would count as resident memory as long as there is room.)

    Args:
        path: the file.
        size: number of entries.
        dtype: of each.
        window: entries that `put` and `get` hold at once.
        keep: the file is there already.

    Example:
        >>> array = DiskArray(Path("x.bin"), 10, np.int32)
        >>> array.write(4, np.array([1, 2]))
        >>> array.read(3, 6)
        array([0, 1, 2], dtype=int32)
    """

    def __init__(
        self, path: Path, size: int, dtype: np.dtype | type, *, window: int = 2**22, keep: bool = False
    ) -> None:
        self.path = path
        self.size = size
        self.dtype = np.dtype(dtype)
        self._window = window
        if not keep:
            path.unlink(missing_ok=True)
            path.touch()
            os.truncate(path, size * self.dtype.itemsize)  # reads as zeros

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Entries [start, stop), as an array of their own."""
        with self.path.open("rb") as stream:  # opened anew: several threads read at once
            values = np.fromfile(stream, self.dtype, stop - start, offset=start * self.dtype.itemsize)
        if len(values) != stop - start:
            raise OSError(f"{self.path}: ends early; it was cut off. Begin anew with --restart.")
        return values

    def write(self, start: int, values: np.ndarray) -> None:
        """Replace the entries from `start` on."""
        with self.path.open("r+b") as stream:
            stream.seek(start * self.dtype.itemsize)
            stream.write(np.ascontiguousarray(values, self.dtype).data)

    def put(self, places: np.ndarray, values: np.ndarray | int | bool) -> None:
        """Set entries at ascending places."""
        for start, stop, chosen in self._windows(places):
            entries = self.read(start, stop)
            entries[places[chosen] - start] = values[chosen] if isinstance(values, np.ndarray) else values
            self.write(start, entries)

    def get(self, places: np.ndarray) -> np.ndarray:
        """Entries at ascending places."""
        found = np.empty(len(places), self.dtype)
        for start, stop, chosen in self._windows(places):
            found[chosen] = self.read(start, stop)[places[chosen] - start]
        return found

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _windows(self, places: np.ndarray) -> Iterator[tuple[int, int, slice]]:
        position = 0
        while position < len(places):
            start = int(places[position])
            stop = min(start + self._window, self.size)
            end = int(np.searchsorted(places, stop))
            yield start, stop, slice(position, end)
            position = end


def new_array(folder: Path | None, name: str, size: int, dtype: np.dtype | type) -> DiskArray | HeldArray:
    """Zeros in a file of a folder; in memory where there is none."""
    return HeldArray(size, dtype) if folder is None else DiskArray(folder / name, size, dtype)
