"""The folder a preparation works in, and arrays of numbers there: what is finished survives a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm import files
from tfdlrm.data.prepared_folders import MANIFEST_FILE
from tfdlrm.files import atomic_path, try_lock


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


WORK_FOLDER = ".work"
# Everything that a preparation writes, the manifest first.
OUTPUT_NAMES = (
    MANIFEST_FILE,
    "train",
    "validation",
    "test",
    "vocabularies",
    "schema.yaml",
    "preprocessing.yaml",
    "quarantine.tsv",
)
_PLAN_FILE = "plan.json"


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote; None if it is not there."""
    try:
        return files.read_json(path)
    except FileNotFoundError:
        return None


def _only_sets_bad_rows_aside(before: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    """Whether a run that stopped at a bad row may go on and set it aside: what it has done holds good rows alone."""
    return before.get("bad_rows") == "error" and {**before, "bad_rows": "quarantine"} == plan


class WorkFolder:
    """`OUT/.work`, made for one plan and locked by one process.

    Args:
        output: where prepared data go.
        plan: everything the result depends on. A folder of another plan is refused, as is a finished output.
        restart: throw away what an earlier run left, whatever its plan.

    Raises:
        FileExistsError: the output is finished, holds other files, or belongs to another plan.
        BlockingIOError: another process is at work there.
    """

    def __init__(self, output: Path, plan: Mapping[str, Any], *, restart: bool = False) -> None:
        self.output = output
        self.path = output / WORK_FOLDER
        finished = (output / MANIFEST_FILE).exists()
        if finished and not restart and not self.path.is_dir():
            raise FileExistsError(f"{output}: prepared data are there already. Give another folder, or --restart.")
        if output.is_dir() and not self.path.is_dir() and not finished:
            names = sorted(entry.name for entry in output.iterdir())
            if names:
                raise FileExistsError(f"{output}: holds other files ({', '.join(names[:3])}). Give an empty folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path / "lock")
        if lock is None:
            raise BlockingIOError(f"{output}: another process prepares data there. Wait for it, or stop it.")
        self._lock = lock
        before = read_json(self.path / _PLAN_FILE)
        plan = json.loads(json.dumps(plan))
        if restart:
            self._clear()
        elif before is not None and before != plan and not _only_sets_bad_rows_aside(before, plan):
            changed = sorted(key for key in {*before, *plan} if before.get(key) != plan.get(key))
            self._lock.close()
            raise FileExistsError(
                f"{output}: an unfinished preparation of another plan is there; {', '.join(changed)} changed. "
                "Run the same command on the same files to go on, or add --restart to begin anew."
            )
        self.resumed = before is not None and not restart
        write_json(self.path / _PLAN_FILE, plan)

    @property
    def finished(self) -> bool:
        """The output is whole: an earlier run was stopped when there was nothing left but to remove this folder."""
        return (self.output / MANIFEST_FILE).exists()

    def folder(self, name: str) -> Path:
        """A folder inside, made."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        self._lock.close()

    def remove(self) -> None:
        """Remove it: the output is finished."""
        self.close()
        shutil.rmtree(self.path)

    def _clear(self) -> None:
        # the manifest first: without it nobody takes what is left for prepared data
        for name in OUTPUT_NAMES:
            entry = self.output / name
            if not entry.exists():
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for entry in self.path.iterdir():
            if entry.name == "lock":
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
