"""Formats of raw files: the columns each has by itself, and its reader. The one place that tells them apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted
from tfdlrm.config.data import DataConfig
from tfdlrm.data.chunks import check_readable_file, read_first_line
from tfdlrm.data.prepared_folders import MANIFEST_FILE, is_prepared
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.schema import (
    NUM_CRITEO_CATEGORICAL,
    NUM_CRITEO_DENSE,
    SCHEMA_FILE,
    CategoricalColumn,
    FeatureSpec,
    criteo_feature_spec,
)

if TYPE_CHECKING:
    from tfdlrm.data.sources import RowSource

_PARQUET_MAGIC = b"PAR1"
ARROW_MAGIC = b"ARROW1"
CRITEO_FORMATS = ("criteo", "criteo-kaggle", "criteo-terabyte")
TYPED_FORMATS = ("parquet", "arrow")

# Avazu's click log: the id of the row and the hour of the impression are no features.
AVAZU_KEYS = ("id", "hour")
AVAZU_COLUMNS = (
    *("C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
    *("C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21"),
)


def avazu_feature_spec() -> FeatureSpec:
    """Avazu's columns: label `click`, 21 categorical ones with an out-of-vocabulary row each, keys `id` and `hour`."""
    return FeatureSpec(
        labels=("click",),
        categorical=tuple(
            CategoricalColumn(name=name, encoding="vocabulary", id_policy="oov") for name in AVAZU_COLUMNS
        ),
        keys=AVAZU_KEYS,
    )


def default_spec(data_format: str, path: Path, place: str) -> FeatureSpec:
    """The format's own columns, or those of `schema.yaml` beside the file.

    Args:
        data_format: of the file.
        path: the file.
        place: how a schema is given, for the message.

    Raises:
        ValueError: there is neither.
    """
    if data_format in CRITEO_FORMATS:
        return criteo_feature_spec()
    if data_format == "avazu":
        return avazu_feature_spec()
    if data_format == "movielens":
        from tfdlrm.data.movielens_columns import movielens_feature_spec

        return movielens_feature_spec()
    beside = path.parent / SCHEMA_FILE
    if beside.is_file():
        return FeatureSpec.load(beside)
    raise ValueError(
        f"{path}: format {quoted(data_format)} needs a schema. Give {place}, or put {SCHEMA_FILE} beside the file."
    )


def guess_format(path: Path, otherwise: str = "csv") -> tuple[str, str]:
    """The format and why it is taken for that: by the name, the first bytes or the first line.

    Args:
        path: a file or a folder.
        otherwise: the format of a file that none of these tells.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: an empty file, or a folder of no known kind.

    Example:
        >>> guess_format(Path("rows.csv.gz"))
        ('csv', 'by its name')
    """
    if path.is_dir():
        return _guess_folder(path)
    check_readable_file(path, "a data file or a folder of prepared data")
    with path.open("rb") as stream:
        magic = stream.read(len(ARROW_MAGIC))
    if magic.startswith(_PARQUET_MAGIC):
        return "parquet", "by its first bytes"
    if magic == ARROW_MAGIC:
        if is_prepared(path.parent):
            raise ValueError(f"{path}: one file of prepared data. Give the folder it belongs to, with {MANIFEST_FILE}.")
        return "arrow", "by its first bytes"
    line = read_first_line(path)
    if set(AVAZU_COLUMNS) <= {name.decode(errors="replace") for name in line.split(b",")}:
        return "avazu", "by the names in its header"
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    if suffixes and suffixes[-1] == ".parquet":
        raise ValueError(
            f"{path}: Parquet by its name, and not by its first bytes, {quoted(magic)}. Get a whole copy, or give the "
            "file the name of what it is."
        )
    if suffixes and suffixes[-1] == ".csv":
        return "csv", "by its name"
    fields = line.split(b"\t")
    num_features = NUM_CRITEO_DENSE + NUM_CRITEO_CATEGORICAL
    # a header line has names where Criteo has integers
    numbers = fields[: len(fields) - NUM_CRITEO_CATEGORICAL]
    if len(fields) in (num_features, num_features + 1) and all(_is_integer(field) for field in numbers):
        return "criteo", f"by its first line of {len(fields)} tab-separated fields without names"
    if len(fields) in (num_features, num_features + 1) and not any(map(_has_digits_only, fields)):
        return "csv", f"by its first line of {len(fields)} tab-separated names"
    return otherwise, "no other format fits its name or first line"


def _guess_folder(path: Path) -> tuple[str, str]:
    if is_prepared(path):
        return "prepared", f"it holds {MANIFEST_FILE}, or is a part of what does"
    if is_movielens(path):
        return "movielens", "it holds MovieLens's ratings"
    raise ValueError(
        f"{path}: a folder with neither {MANIFEST_FILE} (prepared data) nor u.data or *.inter (MovieLens). "
        "Give such a folder, or a file."
    )


def is_movielens(path: Path) -> bool:
    """Whether a path is a folder of MovieLens's files."""
    return path.is_dir() and ((path / "u.data").is_file() or any(path.glob("*.inter")))


def _is_integer(field: bytes) -> bool:
    return not field.strip() or field.strip().removeprefix(b"-").isdigit()


def _has_digits_only(field: bytes) -> bool:
    return not field.strip() or field.strip().isdigit()


def data_at(config: DataConfig, path: str | os.PathLike[str]) -> DataConfig:
    """`config` for the rows at a path, in the format that they are in.

    Of a section for another format stays what has a meaning: fractions and `max_rows`, and for raw files the schema,
    `id_modulo` and that rows are split, in their own order then.

    Raises:
        FileNotFoundError, ValueError: see `guess_format`.

    Example:
        >>> data_at(preset("quickstart").data, "clicks.csv.gz").format
        'csv'
    """
    raw = config.format not in ("synthetic", "prepared")
    found, _ = guess_format(Path(path), otherwise=config.format if raw else "csv")
    if found == config.format:
        return replace(config, path=os.fspath(path))
    kept: dict[str, Any] = {
        name: getattr(config, name) for name in ("train_fraction", "validation_fraction", "max_rows")
    }
    if found != "prepared":
        split = "none" if config.split == "none" else "time"
        kept |= {"split": split, "schema": config.schema, "id_modulo": config.id_modulo}
    return DataConfig(format=found, path=os.fspath(path), **kept)  # type: ignore[arg-type]


def open_source(
    data_format: str,
    path: str | os.PathLike[str],
    spec: FeatureSpec,
    quarantine: Quarantine,
    *,
    allow_unlabelled: bool = False,
    chunk_bytes: int | None = None,
) -> tuple[RowSource, bool]:
    """A reader of one file (the folder, for MovieLens), and whether its rows have labels.

    Args:
        data_format: criteo (or a kind of it), movielens, parquet, arrow, csv or avazu, which is CSV.
        path, spec, quarantine: what to read, its columns, and where bad rows go.
        allow_unlabelled: the label columns may be missing.
        chunk_bytes: text is handled in pieces of about this size; None for the reader's own.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, ValueError: it cannot be read; the message names it.
    """
    in_chunks = {} if chunk_bytes is None else {"chunk_bytes": chunk_bytes}
    if data_format in CRITEO_FORMATS:
        from tfdlrm.data.criteo import criteo_source

        return criteo_source(path, spec, quarantine, allow_unlabelled=allow_unlabelled, **in_chunks)
    if data_format == "movielens":
        from tfdlrm.data.movielens import MovieLensSource

        return MovieLensSource(path, quarantine), True
    from tfdlrm.data.tabular import csv_source
    from tfdlrm.data.typed import typed_source

    if data_format in TYPED_FORMATS:
        return typed_source(path, data_format, spec, quarantine, allow_unlabelled=allow_unlabelled)
    return csv_source(path, spec, quarantine, allow_unlabelled=allow_unlabelled, **in_chunks)
