"""Rows of raw files, as `tfdlrm predict` reads them, as columns of a `tf.train.Example`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from savedmodels.client.rows import Numbered
from savedmodels.manifest import MANIFEST_FILE
from savedmodels.names import DENSE, input_of_features
from tfdlrm.checks import quoted
from tfdlrm.data.cells import parse_numbers, parse_text
from tfdlrm.data.parse import RawRows, RowParser
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.preprocessing import PREPROCESSING_DIRECTORY
from tfdlrm.data.quarantine import BadRowError, Quarantine
from tfdlrm.data.raw_formats import guess_format, open_source
from tfdlrm.data.sources import parse_block
from tfdlrm.schema import DERIVED, SCHEMA_FILE, CategoricalColumn, FeatureSpec


def find_schema(path: str | os.PathLike[str]) -> FeatureSpec:
    """The schema that a path means: a `schema.yaml`, an export (or the folder of its versions), or a training run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a valid schema.
    """
    folder = Path(path)
    if folder.is_dir():
        versions = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
        newest = sorted(versions, key=lambda entry: int(entry.name))[-1:]
        within = [MANIFEST_FILE.parent, Path(), Path(PREPROCESSING_DIRECTORY)]
        for place in [*(folder / own for own in within), *(each / within[0] for each in newest)]:
            if (place / SCHEMA_FILE).is_file():
                return FeatureSpec.load(place)
    return FeatureSpec.load(folder)


def read_raw_file(path: str | os.PathLike[str], spec: FeatureSpec) -> Iterator[Numbered]:
    """(line, columns) of each row of a raw file: what `tfdlrm predict` reads, text, Parquet, gzip and all.

    Values are as an export with `spec` takes them; a missing one is left out, and so are labels, keys and columns that
    the schema ignores.

    Args:
        path: of the file.
        spec: the schema of the model.

    Raises:
        FileNotFoundError, ValueError: the file does not fit the schema, or a row cannot be used; file, line, column and
            value are named.
    """
    data_format, _ = guess_format(Path(path))
    if data_format == "prepared":
        raise ValueError(f"{path}: prepared rows are encoded already, and a server takes raw ones. Give the raw file.")
    if data_format == "criteo" and spec.raw.columns:
        data_format = "csv"
    quarantine = Quarantine()
    source, labelled = open_source(data_format, path, spec, quarantine, allow_unlabelled=True)
    parser = RowParser(spec, quarantine, with_labels=labelled, empty_labels=True)
    try:
        for block in source.blocks():
            rows = parse_block(parser, block, source)  # all of them, or an error
            columns = _columns(block.frame, rows, spec)
            for line, values in zip(block.lines.tolist(), zip(*columns.values(), strict=True), strict=True):
                yield line, {name: value for name, value in zip(columns, values, strict=True) if value is not None}
    except BadRowError as error:
        raise ValueError(error.row.message(can_be_set_aside=False)) from error


def _columns(frame: pl.DataFrame, rows: RawRows, spec: FeatureSpec) -> dict[str, list[Any]]:
    """Column -> a value a row; None where it is missing."""
    columns = {column.name: _numbers(frame[column.name]) for column in spec.dense}
    inputs = input_of_features(spec)
    for column in spec.categorical:
        name = inputs[column.name]
        if name == DENSE or name in columns:
            continue
        if column.encoding == "bins":
            columns[name] = _numbers(frame[name])
        elif column.encoding in DERIVED:
            columns[name] = parse_text(frame[name]).to_list()
        else:
            columns |= _values(column, rows)
    return columns


def _numbers(cells: pl.Series) -> list[float | None]:
    numbers = parse_numbers(cells)
    return [None if is_empty else value for value, is_empty in zip(numbers.values.tolist(), numbers.empty, strict=True)]


def _values(column: CategoricalColumn, rows: RawRows) -> dict[str, list[Any]]:
    """Ids or texts of a feature, and the weights that it has."""
    tokens = rows.tokens[column.name]
    values = tokens.values.to_list()
    if column.encoding == "hex":
        values = [f"{value:x}" for value in values]
    found = {column.name: values}
    if tokens.weights is not None:
        found[column.weights] = tokens.weights.tolist()
    if tokens.lengths is None:
        return found
    ends = np.cumsum([0, *tokens.lengths]).tolist()
    return {name: [own[a:b] for a, b in itertools.pairwise(ends)] for name, own in found.items()}


def check_signature(takes_examples: bool, signature: str) -> None:
    """Refuses a signature that raw rows cannot be asked of."""
    if not takes_examples:
        raise ValueError(
            f"signature {quoted(signature)} takes columns, and rows read by a schema are raw. Ask serving_default of "
            "an export that takes raw values."
        )
