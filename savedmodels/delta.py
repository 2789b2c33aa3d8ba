"""What changed between two exports of one model: the rows that differ, and the small files whole.

    DELTA/
      delta.json                checksums of both manifests and of bundle's files, names of the arrays in their order
      files/                    every file of the new version but the variables'
      bundle/                   what the variables hold beside large arrays: the dense weights
      rows/<array>.places.npy   int64 [n], rows that differ
      rows/<array>.values.npy   [n, width], as they are stored; uint8 bytes of the stored dtype

A base and a delta give the new version byte for byte: `apply_delta` compares every file with the new version's manifest
before the folder appears. Both directions read and write in chunks and never hold an array.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.bundle import small_values, stored_array, variables_prefix, write_bundle
from savedmodels.delta_files import BUNDLE, DELTA_FILE, FILES, FORMAT, ROWS, Delta, array_shapes, read_delta
from savedmodels.manifest import check_files, file_entry, read_manifest
from savedmodels.serving_rows import StoredArray
from savedmodels.versions import new_version
from tfdlrm.checks import quoted
from tfdlrm.files import appear, partial_folder

_SMALL = "small"
_CHUNK_BYTES = 64 * 2**20


def export_delta(base: str | os.PathLike[str], new: str | os.PathLike[str], delta: str | os.PathLike[str]) -> int:
    """Writes what turns one version into another.

    Args:
        base: a version's folder, that the receivers have.
        new: a later version's folder, of the same model and options.
        delta: the folder to write; must not exist.

    Returns:
        Rows that differ.

    Raises:
        ValueError: the versions are of different models or options: arrays differ in name, shape or dtype.
        FileExistsError: `delta` is there already.
        FileNotFoundError: a version is not whole.

    Example:
        >>> export_delta("exports/clicks/1", "exports/clicks/2", "deltas/1-2")
        1532
    """
    base, new, delta = Path(base), Path(new), Path(delta)
    if delta.exists():
        raise FileExistsError(f"{delta} is there already. Give another folder.")
    manifests = [read_manifest(base), read_manifest(new)]
    arrays = _same_arrays(base, new, manifests)
    with partial_folder(delta) as partial:
        (partial / ROWS).mkdir()
        changed = sum(_write_changes(base, new, name, partial / ROWS) for name in arrays)
        _copy_small_files(new, partial / FILES)
        (partial / BUNDLE).mkdir()
        write_bundle(str(partial / BUNDLE / _SMALL), small_values(variables_prefix(new)), [])
        description = {
            "format": FORMAT,
            "base_checksum": manifests[0]["checksum"],
            "new_checksum": manifests[1]["checksum"],
            "base_version": manifests[0]["version"],
            "version": manifests[1]["version"],
            "arrays": arrays,
            "bundle": {file.name: file_entry(file) for file in sorted((partial / BUNDLE).iterdir())},
            "changed_rows": changed,
        }
        (partial / DELTA_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        appear(partial, delta)
    return changed


def apply_delta(base: str | os.PathLike[str], delta: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Makes the new version from a base and a delta.

    Args:
        base: the version's folder that the delta was made from.
        delta: from `export_delta`.
        path: the folder of all versions; the new one gets the number that it has.

    Returns:
        The new version's folder.

    Raises:
        ValueError: the delta is of another base, or does not give the new version's files.
        FileExistsError: the version is there already.
        FileNotFoundError: a file of the delta is missing.

    Example:
        >>> apply_delta("exports/clicks/1", "deltas/1-2", "exports/clicks")
        PosixPath('exports/clicks/2')
    """
    return write_version(read_delta(base, delta), path)


def write_version(delta: Delta, path: str | os.PathLike[str]) -> Path:
    """Makes the new version of a delta that was read; errors and result are those of `apply_delta`."""
    with new_version(path, delta.version) as (partial, number):
        shutil.copytree(delta.folder / FILES, partial, dirs_exist_ok=True)
        (partial / "variables").mkdir(exist_ok=True)
        small = _small_values(delta.folder)
        arrays = [_changed_array(delta, name) for name in delta.rows]
        write_bundle(variables_prefix(partial), small, arrays)
        problems = check_files(partial)
        if read_manifest(partial)["checksum"] != delta.new_checksum:
            problems.append("the manifest is not the new version's")
        if problems:
            raise ValueError(
                f"{delta.base} and {delta.folder} do not give version {number}: {'; '.join(problems)}. Export it whole."
            )
    return Path(path) / str(number)


def _small_values(delta: Path) -> dict[str, Any]:
    prefix = str(delta / BUNDLE / _SMALL)
    try:
        return small_values(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:  # IndexError: data that are cut
        raise ValueError(f"{prefix} cannot be read: {error}. Make the delta again.") from error


def _same_arrays(base: Path, new: Path, manifests: list[dict[str, Any]]) -> list[str]:
    shapes = [array_shapes(folder, manifest) for folder, manifest in zip((base, new), manifests, strict=True)]
    for name in sorted(set(shapes[0]) | set(shapes[1])):
        was, now = (found.get(name, "absent") for found in shapes)
        if was != now:
            raise ValueError(
                f"array {quoted(name)} is {was} in {base} and {now} in {new}: another model, "
                "vocabulary, quantization or "
                "pruning. Export the new version whole."
            )
    return list(shapes[1])


def _ranges(array: StoredArray) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK_BYTES // (array.width * array.dtype.size))
    for start in range(0, array.rows, step):
        yield start, min(start + step, array.rows)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Rows as uint8: NaN differs from itself, and bfloat16 has no file format."""
    return np.ascontiguousarray(values).view(np.uint8)


def _write_changes(base: Path, new: Path, name: str, folder: Path) -> int:
    before, after = (stored_array(variables_prefix(version), name) for version in (base, new))
    places, values = [np.zeros(0, np.int64)], [np.zeros([0, after.width * after.dtype.size], np.uint8)]
    for start, stop in _ranges(after):
        was, now = _as_bytes(before.read(start, stop)), _as_bytes(after.read(start, stop))
        differs = np.flatnonzero((was != now).any(axis=1))
        places.append(differs + start)
        values.append(now[differs])
    np.save(folder / f"{name}.places.npy", np.concatenate(places), allow_pickle=False)
    np.save(folder / f"{name}.values.npy", np.concatenate(values), allow_pickle=False)
    return sum(len(each) for each in places)


def _changed_array(delta: Delta, name: str) -> StoredArray:
    try:
        before = stored_array(variables_prefix(delta.base), name)
    except KeyError:
        raise ValueError(
            f"{delta.folder}: array {quoted(name)} is not in {delta.base}. Make the delta again."
        ) from None
    places, values = delta.rows[name]
    row_bytes = before.width * before.dtype.size
    if values.shape[1] != row_bytes or (len(places) and places[-1] >= before.rows):
        raise ValueError(
            f"{delta.folder}: rows of array {quoted(name)} have {values.shape[1]} bytes and reach to row "
            f"{max(places, default=0)}, and those of {delta.base} {row_bytes} and {before.rows - 1}. Make the delta "
            "again."
        )

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.array(before.read(start, stop))
        low, high = np.searchsorted(places, [start, stop])
        _as_bytes(rows)[places[low:high] - start] = values[low:high]
        return rows

    return StoredArray(name=name, rows=before.rows, width=before.width, dtype=before.dtype, read=read)


def _copy_small_files(version: Path, target: Path) -> None:
    for path in sorted(version.rglob("*")):
        relative = path.relative_to(version)
        if path.is_file() and relative.parts[0] != "variables":
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)
