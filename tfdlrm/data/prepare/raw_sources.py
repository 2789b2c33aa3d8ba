"""Which files hold the raw rows, what their columns are, and how each is read."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tfdlrm.data.chunks import check_readable_file
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.sources import RowSource
from tfdlrm.schema import SCHEMA_FILE, CategoricalColumn, FeatureSpec, criteo_feature_spec

# Avazu's click log: the id of the row and the hour of the impression are no features.
AVAZU_KEYS = ("id", "hour")
AVAZU_COLUMNS = [
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    "C14",
    "C15",
    "C16",
    "C17",
    "C18",
    "C19",
    "C20",
    "C21",
]

_WITH_VOCABULARY = ("vocabulary", "hex")


def avazu_feature_spec() -> FeatureSpec:
    """Avazu's columns: label `click`, 21 categorical ones with an out-of-vocabulary row each, keys `id` and `hour`."""
    return FeatureSpec(
        labels=("click",),
        categorical=tuple(
            CategoricalColumn(name=name, encoding="vocabulary", id_policy="oov") for name in AVAZU_COLUMNS
        ),
        keys=AVAZU_KEYS,
    )


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
        real = file.resolve()
        if real in seen:
            raise ValueError(f"{file}: is given twice (as {seen[real]} too): its rows would be doubled. Name it once.")
        seen[real] = file
    return files


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.split(r"(\d+)", str(path)) if piece]


def spec_of(config: PrepareConfig, files: Sequence[Path]) -> FeatureSpec:
    """The columns of the raw rows.

    Raises:
        ValueError: the format does not tell them, and no schema is given; or options ask for what they do not have.
    """
    spec = config.schema or _default_spec(config, files)
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
                f"min_count={config.min_count}: column {without[0]!r} has no out-of-vocabulary row for rarer values. "
                "Set id_policy: oov for it, or give --oov for all."
            )
    if config.split_column is not None and config.split_column not in spec.keys:
        keys = ", ".join(spec.keys) or "none"
        raise ValueError(
            f"split_column={config.split_column!r} is not a key column of the schema (keys: {keys}). Add it to keys."
        )
    return spec


def _default_spec(config: PrepareConfig, files: Sequence[Path]) -> FeatureSpec:
    if config.format in ("criteo-kaggle", "criteo-terabyte"):
        return criteo_feature_spec()
    if config.format == "avazu":
        return avazu_feature_spec()
    if config.format == "movielens":
        from tfdlrm.data.movielens_columns import movielens_feature_spec

        return movielens_feature_spec()
    beside = files[0].parent / SCHEMA_FILE
    if beside.is_file():
        return FeatureSpec.load(beside)
    raise ValueError(
        f"format={config.format!r} needs a schema. Give --schema FILE, or put {SCHEMA_FILE} beside {files[0]}."
    )


def open_source(
    config: PrepareConfig, spec: FeatureSpec, file: Path, quarantine: Quarantine, chunk_bytes: int
) -> RowSource:
    """A reader of one file.

    Raises:
        FileNotFoundError, PermissionError, ValueError: it cannot be read; the message names it.
    """
    if config.format in ("criteo-kaggle", "criteo-terabyte"):
        from tfdlrm.data.criteo import criteo_source

        return criteo_source(file, spec, quarantine, chunk_bytes=chunk_bytes)[0]
    if config.format == "movielens":
        from tfdlrm.data.movielens import MovieLensSource

        return MovieLensSource(file, quarantine)
    from tfdlrm.data.tabular import csv_source, parquet_source

    if config.format == "parquet":
        return parquet_source(check_readable_file(file, "a Parquet file"), spec)[0]
    return csv_source(file, spec, quarantine, chunk_bytes=chunk_bytes)[0]
