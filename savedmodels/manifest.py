"""The manifest of an export: what it is, what it was trained to, and the SHA-256 of every file beside it.

`assets.extra/tfdlrm/manifest.json`; TensorFlow Serving passes `assets.extra` over. `docs/verify.md` lists its fields.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.files import atomic_path, is_name, read_json, sha256_of, strange_entries

MANIFEST_FILE = Path("assets.extra", "tfdlrm", "manifest.json")
FORMAT = 1
# What `write_manifest` finds out by itself.
_FOUND = frozenset({"format", "tfdlrm_version", "tensorflow_version", "signatures", "files", "checksum"})
# Of a probability, or a logit: what differs by more is another model and no rounding, and any answer would pass.
LARGEST_TOLERANCE = 0.5
SIZE_KINDS = ("rows", "dense_weights", "vocabularies", "graph")


def write_manifest(version_folder: str | os.PathLike[str], *, info: Mapping[str, Any]) -> Path:
    """Writes the manifest of an export whose other files are complete.

    Args:
        version_folder: the export.
        info: what the files do not say, every key needed but the last:
            `version` int, 1 or more; None where whoever publishes the export numbers it;
            `quantization` table -> its rows' storage, for instance "float32" or "int8";
            `rows` table -> number of rows;
            `sizes` bytes of "rows", "dense_weights" and "vocabularies" (the graph's are counted here);
            `metrics` name -> number; NaN is written as null;
            `tolerance` output -> greatest absolute difference that quantized rows may make, at most 0.5; outputs
            without one are compared as tightly as without quantization.
            Further keys are kept as they are, if JSON can hold them.

    Returns:
        The file; it appears whole or not at all.

    Raises:
        FileNotFoundError: there is no `saved_model.pb`.
        ValueError: a key is missing, has a wrong value or is the manifest's own.

    Example:
        >>> write_manifest(
        ...     folder,
        ...     info={
        ...         "version": 1,
        ...         "quantization": {"user": "int8"},
        ...         "rows": {"user": 300},
        ...         "sizes": {"rows": 3600, "dense_weights": 1200, "vocabularies": 0},
        ...         "metrics": {"auc": 0.79},
        ...         "tolerance": {"probability": 0.002, "logit": 0.008},
        ...     },
        ... )
    """
    import tensorflow as tf

    from savedmodels.graph_ops import SAVED_MODEL_FILE, signatures

    folder = Path(version_folder)
    taken = sorted(_FOUND & set(info))
    if taken:
        raise ValueError(f"info: {', '.join(taken)} is found by write_manifest itself. Leave it out.")
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "tfdlrm_version": _tfdlrm_version(),
        "tensorflow_version": tf.__version__,
        **_finite(dict(info)),
        # tensors' names in the graph are TensorFlow's affair
        "signatures": {
            name: {
                kind: {tensor: {"dtype": of["dtype"], "shape": of["shape"]} for tensor, of in tensors.items()}
                for kind, tensors in signature.items()
            }
            for name, signature in signatures(folder).items()
        },
    }
    manifest.setdefault("tolerance", {})
    if isinstance(manifest.get("sizes"), Mapping):
        manifest["sizes"] = {**manifest["sizes"], "graph": (folder / SAVED_MODEL_FILE).stat().st_size}
    manifest["files"] = {path: file_entry(folder / path) for path in _files(folder)}
    problem = _problem(manifest)
    if problem:
        raise ValueError(f"info: {problem}.")
    try:
        manifest["checksum"] = _checksum(manifest)
    except TypeError as error:
        raise ValueError(f"info holds what JSON cannot: {error}.") from error
    path = folder / MANIFEST_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, shared=True) as partial:
        partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return path


def read_manifest(version_folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks the manifest of an export.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON, was changed since it was written, or lacks a field; says which.

    Example:
        >>> read_manifest("exports/clicks/1")["rows"]
        {'user': 300}
    """
    path = Path(version_folder) / MANIFEST_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the export was not finished. Export the model again.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        given = manifest.get("format") if isinstance(manifest, dict) else None
        raise ValueError(f"{path} has format {quoted(given)}, and this version reads {FORMAT}. Export the model again.")
    if manifest.get("checksum") != _checksum(manifest):
        raise ValueError(f"{path} was changed since it was written: its checksum does not fit. Export the model again.")
    problem = _problem(manifest)
    if problem:
        raise ValueError(f"{path}: {problem}. Export the model again.")
    return manifest


def check_files(version_folder: str | os.PathLike[str], *, without: str = "") -> list[str]:
    """Compares the files of an export with its manifest, reading each once.

    Args:
        version_folder: the export.
        without: a folder of it that is passed over.

    Returns:
        A line for each file that is missing, cut short, changed or not in the manifest; none if all is well.

    Raises:
        FileNotFoundError, ValueError: as for `read_manifest`.

    Example:
        >>> check_files("exports/clicks/1")
        ['variables/variables.data-00000-of-00001 is truncated: 4096 of 8192 bytes']
    """
    folder = Path(version_folder)
    listed: Mapping[str, Mapping[str, Any]] = read_manifest(folder)["files"]
    problems = strange_entries(folder)
    if problems:
        return problems
    for name in sorted(listed.keys() | set(_files(folder))):
        shown = name if name.isprintable() else quoted(name)
        if without and name.startswith(f"{without}/"):
            continue
        if name not in listed:
            problems.append(f"{shown} is not in the manifest: it was added later")
        elif problem := file_problem(folder / name, listed[name]):
            problems.append(f"{shown} {problem}")
    return problems


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: "bytes" and "sha256"."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def file_problem(path: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file of which the manifest says `entry`: "is missing"; None where it is the same."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size < entry["bytes"]:
        return f"is truncated: {size} of {entry['bytes']} bytes"
    if size > entry["bytes"] or sha256_of(path) != entry["sha256"]:
        return "was changed: its SHA-256 is not the manifest's"
    return None


def _files(folder: Path) -> list[str]:
    """Every file of an export but the manifest, sorted."""
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        # a link to nothing is no file, and has to be told all the same
        if relative != MANIFEST_FILE and (path.is_file() or path.is_symlink()):
            yield relative.as_posix()


def _tfdlrm_version() -> str:
    from tfdlrm import __version__

    return __version__


def _checksum(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON has not, as None; NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _problem(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest's fields, if anything is."""
    version = manifest.get("version")
    if version is not None and not is_version(version):
        return f"version={quoted(version)} is no whole number from 1 to 2^63 - 1"
    for field in ("quantization", "rows", "metrics", "tolerance"):
        for name in manifest[field] if isinstance(manifest.get(field), Mapping) else ():
            if not str(name).isprintable():
                return f"{field}: {quoted(name)} is no name"
    for field in ("quantization", "rows", "sizes", "metrics", "tolerance", "signatures", "files"):
        if not isinstance(manifest.get(field), Mapping):
            return f"{field}={quoted(manifest.get(field))} is no mapping"
    for table, storage in manifest["quantization"].items():
        if not isinstance(storage, str):
            return f"quantization of table {quoted(table)}: {quoted(storage)} is no text"
    for table, rows in manifest["rows"].items():
        if not _is_count(rows):
            return f"rows of table {quoted(table)}: {quoted(rows)} is no count"
    if manifest["quantization"].keys() != manifest["rows"].keys():
        return f"quantization has {_names(manifest['quantization'])}, and rows {_names(manifest['rows'])}"
    for kind in SIZE_KINDS:
        if not _is_count(manifest["sizes"].get(kind)):
            return f"sizes of {quoted(kind)}: {quoted(manifest['sizes'].get(kind))} is no number of bytes"
    for name, number in manifest["metrics"].items():
        if number is not None and not _is_number(number):
            return f"metrics of {quoted(name)}: {quoted(number)} is no number"
    for name, number in manifest["tolerance"].items():
        if not _is_number(number) or not 0 <= number <= LARGEST_TOLERANCE:
            return f"tolerance of {quoted(name)}: {quoted(number)} is no number from 0 to {LARGEST_TOLERANCE:g}"
    for name, signature in manifest["signatures"].items():
        if problem := _problem_of_signature(signature):
            return f"signature {quoted(name)}: {problem}"
    return problem_of_entries(manifest["files"])


def _names(given: Mapping[str, Any]) -> str:
    return quoted(sorted(given)) if given else "no table"


def _problem_of_signature(signature: Any) -> str | None:
    for kind in ("inputs", "outputs"):
        tensors = signature.get(kind) if isinstance(signature, Mapping) else None
        if not isinstance(tensors, Mapping):
            return f"{kind} are no mapping"
        for name, tensor in tensors.items():
            shape = tensor.get("shape") if isinstance(tensor, Mapping) else 0
            is_shape = shape is None or (isinstance(shape, list) and all(n is None or _is_count(n) for n in shape))
            if not is_shape or not isinstance(tensor.get("dtype"), str):
                return f"{kind}: {quoted(name)} has no dtype and shape"
    return None


def problem_of_entries(files: Mapping[str, Any]) -> str | None:
    """What is wrong with names and `file_entry`s that were read, if anything is."""
    for name, entry in files.items():
        if not is_name(name):
            return f"file {quoted(name)} is not below the folder"
        is_entry = isinstance(entry, Mapping) and _is_count(entry.get("bytes")) and isinstance(entry.get("sha256"), str)
        if not is_entry:
            return f"file {quoted(name)} has no bytes and sha256"
    return None


def is_version(value: Any) -> bool:
    """Whether it can be the number of a version: a positive int64."""
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
