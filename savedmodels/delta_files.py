"""The files of a delta, checked before anything is made of them; TensorFlow is not needed for that.

`savedmodels.delta` says what they are.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from savedmodels.manifest import (
    MANIFEST_FILE,
    check_files,
    file_problem,
    is_version,
    problem_of_entries,
    read_manifest,
)
from tfdlrm.array_files import read_array
from tfdlrm.checks import quoted, shortened
from tfdlrm.files import read_json, strange_entries

DELTA_FILE = "delta.json"
FORMAT = 2
FILES, ROWS, BUNDLE = "files", "rows", "bundle"
MAX_ARRAYS = 100_000


class ChangedRows(NamedTuple):
    """Rows of one array that differ: `places` int64 `[n]`, ascending; `values` uint8 `[n, bytes of a row]`. Mapped."""

    places: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta:
    """A delta that fits its base.

    Args:
        base: folder of the version it was made from.
        folder: of the delta.
        version: number of the new version.
        new_checksum: of the new version's manifest.
        rows: name of an array -> its rows that differ, in the order of the files.
    """

    base: Path
    folder: Path
    version: int
    new_checksum: str
    rows: Mapping[str, ChangedRows]


def read_delta(base: str | os.PathLike[str], delta: str | os.PathLike[str]) -> Delta:
    """Reads a delta and compares it with its base and with what it says of its own files.

    Args:
        base: the version's folder that the delta was made from.
        delta: from `export_delta`.

    Raises:
        ValueError: the delta is of another base, or its files are not what they should be.
        FileNotFoundError: a file of the delta or of the base is missing.
    """
    base, delta = Path(base), Path(delta)
    if strange := strange_entries(delta):
        raise ValueError(f"{delta}: {shortened(strange[0])}. Make the delta again.")
    description = _read_description(delta)
    manifest = read_manifest(base)
    checksum = manifest["checksum"]
    if checksum != description["base_checksum"]:
        raise ValueError(
            f"{delta} was made from version {description['base_version']} with the checksum "
            f"{description['base_checksum'][:12]}, and {base} has {checksum[:12]}. Give the version it was made from."
        )
    for name, entry in description["bundle"].items():
        if problem := file_problem(delta / BUNDLE / name, entry):
            raise ValueError(f"{delta / BUNDLE}: {name} {problem}. Make the delta again.")
    shapes = array_shapes(base, manifest)
    rows = {name: _changed_rows(base, delta, name, shapes) for name in description["arrays"]}
    if missing := sorted(shapes.keys() - rows.keys()):
        raise ValueError(f"{delta} lacks array {quoted(missing[0])} of {base}. Make the delta again.")
    _check_new_version(delta, description)
    return Delta(
        base=base,
        folder=delta,
        version=description["version"],
        new_checksum=description["new_checksum"],
        rows=rows,
    )


def _check_new_version(delta: Path, description: Mapping[str, Any]) -> None:
    """The new version's files but its variables, of which the delta has the change alone."""
    version, folder = description["version"], delta / FILES
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError) as error:
        text = shortened(str(error).removesuffix(" Export the model again."))
        raise ValueError(f"{delta} does not give version {version}: {text} Make the delta again.") from error
    problems = check_files(folder, without="variables")
    if manifest["checksum"] != description["new_checksum"] or manifest["version"] not in (None, version):
        problems.append("the manifest is not the new version's")
    if problems:
        raise ValueError(
            f"{delta} does not give version {version}: {shortened('; '.join(problems))}. Make the delta again."
        )


def array_shapes(base: Path, manifest: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Name of every array of a version -> its "rows", "width" and "dtype"."""
    arrays = manifest.get("arrays")
    if not isinstance(arrays, Mapping) or not all(
        isinstance(shape, Mapping) and isinstance(shape.get("rows"), int) for shape in arrays.values()
    ):
        raise ValueError(f"{base / MANIFEST_FILE} names no arrays: the version has no delta. Export it again.")
    return arrays


def _changed_rows(base: Path, delta: Path, name: str, shapes: Mapping[str, Mapping[str, Any]]) -> ChangedRows:
    if name not in shapes:
        raise ValueError(f"{delta}: array {quoted(name)} is not in {base}. Make the delta again.")
    places, values = (_mapped(delta / ROWS / f"{name}.{kind}.npy") for kind in ("places", "values"))
    is_sorted = places.ndim == 1 and places.dtype == np.int64 and bool((np.diff(places) > 0).all())
    if not is_sorted or (len(places) and not 0 <= places[0] <= places[-1] < shapes[name]["rows"]):
        raise ValueError(f"{delta}: places of array {quoted(name)} are not rows of it, in order. Make the delta again.")
    if values.dtype != np.uint8 or values.ndim != 2 or len(values) != len(places):
        raise ValueError(
            f"{delta}: values of array {quoted(name)} are {values.dtype} {values.shape}, and need to be uint8, a row "
            f"for each of {len(places)} places. Make the delta again."
        )
    return ChangedRows(places, values)


def _read_description(delta: Path) -> dict[str, Any]:
    file = delta / DELTA_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: there is no delta, or it was not finished. Make it again.")
    description = read_json(file)
    needed = {"format", "base_checksum", "new_checksum", "base_version", "version", "arrays", "bundle"}
    if not isinstance(description, dict) or description.get("format") != FORMAT or needed - set(description):
        raise ValueError(f"{file} is no description of a delta of format {FORMAT}. Make the delta again.")
    for key in ("base_checksum", "new_checksum"):
        if not isinstance(description[key], str):
            raise ValueError(f"{file}: {key}={quoted(description[key])} is no checksum. Make the delta again.")
    for key in ("base_version", "version"):
        if not is_version(description[key]):
            raise ValueError(f"{file}: {key}={quoted(description[key])} is no version. Make the delta again.")
    arrays = description["arrays"]
    if not isinstance(arrays, list) or len(arrays) > MAX_ARRAYS:
        raise ValueError(f"{file}: arrays={quoted(arrays)} is no list of at most {MAX_ARRAYS:,}. Make the delta again.")
    for name in arrays:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{file}: {quoted(name)} is not the name of an array. Make the delta again.")
    if len(set(arrays)) < len(arrays):
        raise ValueError(f"{file}: arrays has a name twice. Make the delta again.")
    bundle = description["bundle"]
    problem = problem_of_entries(bundle) if isinstance(bundle, dict) else f"bundle={quoted(bundle)} is no mapping"
    if problem:
        raise ValueError(f"{file}: {problem}. Make the delta again.")
    return description


def _mapped(file: Path) -> np.ndarray:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Make the delta again.")
    try:
        return read_array(file, mapped=True)
    except ValueError as error:
        raise ValueError(f"{error} Make the delta again.") from error
