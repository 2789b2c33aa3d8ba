"""Formats of raw files: the columns each has by itself, and its reader. The one place that tells them apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tfdlrm.data.quarantine import Quarantine
from tfdlrm.schema import SCHEMA_FILE, CategoricalColumn, FeatureSpec, criteo_feature_spec

if TYPE_CHECKING:
    from tfdlrm.data.sources import RowSource

CRITEO_FORMATS = ("criteo", "criteo-kaggle", "criteo-terabyte")

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


def default_spec(data_format: str, path: Path) -> FeatureSpec | None:
    """The format's own columns, or those of `schema.yaml` beside the file; None where there is neither."""
    if data_format in CRITEO_FORMATS:
        return criteo_feature_spec()
    if data_format == "avazu":
        return avazu_feature_spec()
    if data_format == "movielens":
        from tfdlrm.data.movielens_columns import movielens_feature_spec

        return movielens_feature_spec()
    beside = path.parent / SCHEMA_FILE
    return FeatureSpec.load(beside) if beside.is_file() else None


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
        data_format: criteo (or a kind of it), movielens, parquet, csv or avazu, which is CSV.
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
    from tfdlrm.data.tabular import csv_source, parquet_source

    if data_format == "parquet":
        return parquet_source(path, spec, allow_unlabelled=allow_unlabelled)
    return csv_source(path, spec, quarantine, allow_unlabelled=allow_unlabelled, **in_chunks)
