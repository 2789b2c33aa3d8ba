"""What every folder of prepared data has, and how it is told from others; nothing here needs pyarrow or TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.files import read_json
from tfdlrm.schema import SCHEMA_FILE, CategoricalColumn, FeatureSpec

FORMAT_NAME, FORMAT_VERSION = "tfdlrm-prepared", 1
MANIFEST_FILE = "manifest.json"
PARTS = ("train", "validation", "test")
KEY_PREFIX = "key:"


def is_prepared(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of prepared data, or the folder of one of its parts."""
    path = Path(path)
    return (path / MANIFEST_FILE).is_file() or (path.is_dir() and (path.parent / MANIFEST_FILE).is_file())


def part_folders(path: str | os.PathLike[str], part: str | None) -> list[Path]:
    """The folders of the parts of prepared data that are meant; any other path as it is.

    Args:
        path: prepared data, a part of it, or anything else.
        part: a part's name, or `all`; None for the test part, or the only one.

    Raises:
        ValueError: `part` of what is no prepared data, or there is no such part; names those there are.
    """
    folder = Path(path)
    if not (folder / MANIFEST_FILE).is_file():
        if part is not None:
            raise ValueError(
                f"{folder}: part={quoted(part)} has a meaning only with a folder of prepared data. Give that, or leave "
                "part out."
            )
        return [folder]
    parts = list(read_manifest(folder)["parts"])
    if part is None:
        part = parts[0] if len(parts) == 1 else "test"
    if part != "all" and part not in parts:
        raise ValueError(f"{folder}: has no {quoted(part)} part, but {', '.join(parts)}. Choose one of these, or all.")
    return [folder / name for name in (parts if part == "all" else [part])]


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of prepared data.

    Raises:
        FileNotFoundError: the folder has none: it holds something else, or its preparation was not finished.
        ValueError: it is damaged, or of another version.
    """
    file = Path(folder) / MANIFEST_FILE
    if not file.is_file():
        if is_prepared(folder):
            raise FileNotFoundError(
                f"{folder}: a part of prepared data, where all of it is expected. Give {file.parent.parent}."
            )
        raise FileNotFoundError(
            f"{file}: no prepared data there. Make them: tfdlrm data prepare SOURCE {folder}; a preparation that was "
            "stopped goes on when its command is run again."
        )
    try:
        manifest = read_json(file)
        name, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: not a manifest of prepared data ({_said(error)}). Prepare the data again."
        ) from error
    if (name, version) != (FORMAT_NAME, FORMAT_VERSION):
        raise ValueError(
            f"{file}: format {quoted(name)}, version {quoted(version)}; this program reads {quoted(FORMAT_NAME)}, "
            f"version {FORMAT_VERSION}. Prepare the data again."
        )
    try:
        _check_parts(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: not a manifest of prepared data ({_said(error)}). Prepare the data again."
        ) from error
    return manifest


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{quoted(error.args[0])} is missing"
    return "a list or a mapping is of another form" if isinstance(error, TypeError) else str(error)


def refuse_other_output(folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    """Raises a ValueError unless the files of prepared data are those that are read here."""
    form = manifest["config"]["output"]
    if form != "arrow":
        raise ValueError(
            f"{folder}: holds {form} files, for other programs. Prepare with --output arrow to train on it."
        )


def _check_parts(manifest: dict[str, Any]) -> None:
    """What is read by: the form of the files; of each part its rows, and its files with their rows; the books."""
    checks.check_text("manifest", "config.output", manifest["config"]["output"])
    checks.check_mapping("manifest", "parts", manifest["parts"])
    books = manifest["books"]
    for name in ("read", "written", "sampled_out", "quarantined"):
        checks.check_integer("books", name, books[name], minimum=0)
    if books["read"] != books["written"] + books["sampled_out"] + books["quarantined"]:
        raise ValueError("the books do not balance: read is not written + sampled_out + quarantined")
    for part, entry in manifest["parts"].items():
        checks.check_choice("manifest", "part", part, PARTS)
        for file in entry["files"]:
            checks.check_text(part, "name", file["name"])
        counts = [checks.check_integer(part, "rows", one["rows"], minimum=1) for one in (entry, *entry["files"])]
        if counts[0] != sum(counts[1:]):
            raise ValueError(f"{part}: rows={counts[0]}, and its files have {sum(counts[1:])}")
    written = sum(entry["rows"] for entry in manifest["parts"].values())
    if written != books["written"]:
        raise ValueError(f"books: written={books['written']}, and its parts have {written}")


def read_schema(folder: str | os.PathLike[str]) -> FeatureSpec:
    """The schema of prepared data or of a training run, in which every table has its size.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none, or a table has no size.
    """
    spec = FeatureSpec.load(folder)
    unsized = next((column for column in spec.categorical if column.table not in spec.vocabulary_sizes), None)
    if unsized is not None:
        raise ValueError(
            f"{Path(folder) / SCHEMA_FILE}: vocabulary_sizes lacks table {quoted(unsized.table)} of column "
            f"{quoted(unsized.name)}. Restore the file."
        )
    return spec


def id_limit(spec: FeatureSpec, column: CategoricalColumn) -> int | None:
    """Prepared ids of a column are below this; None where raw ids reach the engine, which applies the policy."""
    if column.encoding == "integer" and column.id_policy != "error":
        return None
    return spec.vocabulary_sizes[column.table]


def key_column(spec: FeatureSpec, name: str) -> str:
    """Where a key is kept: under its own name, unless a feature or label has that."""
    taken = {*spec.labels, *(column.name for column in spec.dense), *spec.feature_names}
    return KEY_PREFIX + name if name in taken else name
