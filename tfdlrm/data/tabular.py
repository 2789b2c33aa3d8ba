"""Columns of files by name, in any order, and the reader of CSV."""

from __future__ import annotations

import collections
import csv
import os
from collections.abc import Sequence
from pathlib import Path

from tfdlrm.checks import nearest, quoted, shortened
from tfdlrm.data.chunks import CHUNK_BYTES, check_readable_file, read_first_line
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.sources import TextSource
from tfdlrm.schema import ROW_ID, FeatureSpec

_SEPARATORS = (",", "\t", ";", "|")


def check_columns(file: str, found: Sequence[str], spec: FeatureSpec, *, allow_unlabelled: bool = False) -> bool:
    """Compare a file's columns with the schema's.

    Args:
        file: for messages.
        found: the columns of the file.
        spec: the columns expected; order does not matter.
        allow_unlabelled: the label columns may all be missing.

    Returns:
        Whether the file has the labels.

    Raises:
        ValueError: a column is missing, unknown or there twice.
    """
    counts = collections.Counter(found)
    twice = next((name for name in found if counts[name] > 1), None)
    if twice is not None:
        raise ValueError(f"{file}: column {quoted(twice)} occurs twice in the header. Rename one.")
    wanted = spec.column_names
    labelled = not allow_unlabelled or any(name in found for name in spec.labels)
    for name in wanted:
        if name not in counts and (labelled or name not in spec.labels):
            near = nearest(name, set(found).difference(wanted))
            hint = f" Is it {quoted(near)}?" if near else ""
            raise ValueError(
                f"{file}: column {quoted(name)} of the schema is missing.{hint} Columns there: "
                f"{shortened(', '.join(map(str, found)))}. "
                "Add the column, or change the schema."
            )
    for name in found:
        if name not in wanted and name not in spec.ignored and name != ROW_ID:
            missing = "" if labelled else f" The labels ({', '.join(spec.labels)}) are not there: is it one of them?"
            raise ValueError(
                f"{file}: column {quoted(name)} is not in the schema.{missing} Add it (under keys, if rows are "
                "found again by it, or under ignored), or remove it from the file."
            )
    return labelled


def csv_source(
    path: str | os.PathLike[str],
    spec: FeatureSpec,
    quarantine: Quarantine,
    *,
    allow_unlabelled: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[TextSource, bool]:
    """Rows of a CSV file, plain or gzip, with a header line; see `check_columns` and `criteo_source`.

    The separator (comma, tab, semicolon or bar) is the one that splits the header into most of the schema's columns.
    Fields may be quoted by RFC 4180 and then hold separators and newlines. Where the schema has `raw.columns`, there is
    no header, and the separator is the one that splits the first line into as many fields.
    """
    file = check_readable_file(path, "a CSV file" if spec.raw.columns else "a CSV file with a header line")
    splits = split_line(file)
    if spec.raw.columns:
        separator, columns = _without_header(file, splits, spec, allow_unlabelled=allow_unlabelled)
    else:
        wanted = {*spec.column_names, *spec.ignored}
        separator = max(splits, key=lambda each: len(wanted.intersection(splits[each])))
        columns = splits[separator]
        if wanted.isdisjoint(columns):
            widest = max(splits.values(), key=len)
            raise ValueError(
                f"{file}, line 1: no column of the schema, in {len(widest)} fields: {shortened(', '.join(widest))}. If "
                "the file has no header, name its fields in order under raw.columns of the schema; else check that "
                "they belong together."
            )
    labelled = check_columns(str(file), columns, spec, allow_unlabelled=allow_unlabelled)
    bins = (column.raw_name for column in spec.categorical if column.encoding == "bins")
    numeric = {*spec.labels, *(column.name for column in spec.dense), *bins}
    if pl.Series(spec.raw.missing, dtype=pl.String).cast(pl.Float64, strict=False).count():
        numeric = set()  # read as a number, a mark such as -1 or nan could not be told any more
    form = TextFormat(
        separator=separator.encode(),
        columns=tuple(columns),
        quote=b'"',
        has_header=not spec.raw.columns,
        numeric=frozenset(numeric.difference(spec.raw.label_values)),
        missing=spec.raw.missing,
    )
    return TextSource(file, form, quarantine, chunk_bytes), labelled


def split_line(file: Path) -> dict[str, list[str]]:
    """The fields of a file's first line, without blanks around them, by each separator that may be meant.

    An empty one, as a frame's index has, is called by its place: `column_1`.

    Raises:
        ValueError: it is not UTF-8, or its quotes are wrong.
    """
    try:
        text = read_first_line(file).decode()
        splits = {separator: next(csv.reader([text], delimiter=separator), []) for separator in _SEPARATORS}
        return {separator: _named(fields) for separator, fields in splits.items()}
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}, line 1: the line has bytes that are not UTF-8. Convert the file to UTF-8."
        ) from error
    except csv.Error as error:
        raise ValueError(f"{file}, line 1: no line of a CSV file ({error}). Mend it.") from error


def _named(fields: Sequence[str]) -> list[str]:
    return [field.strip() or f"column_{place}" for place, field in enumerate(fields, 1)]


def _without_header(
    file: Path, splits: dict[str, list[str]], spec: FeatureSpec, *, allow_unlabelled: bool
) -> tuple[str, list[str]]:
    """The separator and the columns of a file whose first line is a row."""
    columns = list(spec.raw.columns)
    unlabelled = [name for name in columns if name not in spec.labels]
    for names in (columns, unlabelled) if allow_unlabelled else (columns,):
        for separator, fields in splits.items():
            if len(fields) == len(names):
                return separator, names
    separator = max(splits, key=lambda each: len(splits[each]))
    raise ValueError(
        f"{file}, line 1: {len(splits[separator])} fields by {quoted(separator)}, and raw.columns of the schema names "
        f"{len(columns)}. Name each field there, in order."
    )
