"""Which files hold the raw rows, and what their columns are."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from tfdlrm.checks import quoted
from tfdlrm.data.prepare.config import PrepareConfig, RawFormat
from tfdlrm.data.prepared_folders import is_prepared
from tfdlrm.data.raw_formats import default_spec, guess_format, is_movielens
from tfdlrm.schema import SCHEMA_FILE, FeatureSpec

_WITH_VOCABULARY = ("vocabulary", "hex")


def find_files(sources: Sequence[str | os.PathLike[str]], what: str = "a file of raw rows") -> list[Path]:
    """The files that sources name: files, folders (their files, not hidden ones) and glob patterns.

    The files of a folder or pattern come in natural order: `day_2` before `day_10`.

    Raises:
        FileNotFoundError: a source names nothing.
        ValueError: a file is named twice.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith((".", "_"))]
            found = [entry for entry in found if entry.name != SCHEMA_FILE]
        elif path.exists() or not glob.has_magic(str(source)):
            found = [path]
        else:
            found = [Path(name) for name in glob.glob(str(source), recursive=True) if os.path.isfile(name)]
        if not found:
            raise FileNotFoundError(f"{source}: names no file ({what} is expected). Give files, a folder or a pattern.")
        files.extend(sorted(found, key=_natural))
    seen: dict[Path, Path] = {}
    for file in files:
        if not str(file).isprintable():
            raise ValueError(f"{quoted(str(file))}: a name that is not UTF-8, or not printable. Rename the file.")
        real = file.resolve()
        if real in seen:
            raise ValueError(f"{file}: is given twice (as {seen[real]} too): its rows would be doubled. Name it once.")
        seen[real] = file
    return files


def first_source(sources: Sequence[str | os.PathLike[str]]) -> Path:
    """What tells the format of sources: the first file, or the folder of data that is one as a whole.

    Raises:
        FileNotFoundError, ValueError: see `find_files`.
    """
    first = Path(sources[0])
    return first if is_movielens(first) or is_prepared(first) else find_files(sources)[0]


def guess_raw_format(sources: Sequence[str | os.PathLike[str]], schema: FeatureSpec | None) -> RawFormat:
    """The format of the first file that sources name; see `guess_format`.

    Raises:
        FileNotFoundError: a source names nothing.
        ValueError: it is prepared data, or Criteo's, of which there are two kinds.
    """
    found, why = guess_format(first_source(sources))
    if found == "criteo" and schema is not None and schema.raw.columns:
        return "csv"
    if found not in get_args(RawFormat):
        formats = ", ".join(get_args(RawFormat))
        raise ValueError(f"{sources[0]}: looks like {found} ({why}). Give --format, one of: {formats}.")
    return cast("RawFormat", found)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.split(r"(\d+)", str(path)) if piece]


def spec_of(config: PrepareConfig, files: Sequence[Path]) -> FeatureSpec:
    """The columns of the raw rows.

    Raises:
        ValueError: the format does not tell them, and no schema is given; or options ask for what they do not have.
    """
    spec = config.schema or default_spec(config.format, files[0], "--schema FILE")
    if config.oov:
        columns = [
            replace(column, id_policy="oov") if column.encoding in _WITH_VOCABULARY else column
            for column in spec.categorical
        ]
        spec = replace(spec, categorical=tuple(columns))
    if config.min_count > 1:
        without = [c.name for c in spec.categorical if c.encoding in _WITH_VOCABULARY and c.id_policy != "oov"]
        if without:
            raise ValueError(
                f"min_count={config.min_count}: column {quoted(without[0])} has no "
                "out-of-vocabulary row for rarer values. "
                "Set id_policy: oov for it, or give --oov for all."
            )
    if config.split_column is not None and config.split_column not in spec.keys:
        keys = ", ".join(spec.keys) or "none"
        raise ValueError(
            f"split_column={quoted(config.split_column)} is not a key column of the schema (keys: "
            f"{keys}). Add it to keys."
        )
    return spec
