"""CSV and Parquet files with a schema: columns are found by name, in any order."""

from __future__ import annotations

import collections
import contextlib
import csv
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tfdlrm.checks import nearest, quoted, shortened
from tfdlrm.data.chunks import CHUNK_BYTES, check_readable_file, read_first_line
from tfdlrm.data.column_types import plain_types
from tfdlrm.data.columns import ROW_ID, columns_of
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import Quarantine
from tfdlrm.data.raw_rows import FrameBlock, row_as_text
from tfdlrm.data.sources import TextSource
from tfdlrm.schema import FeatureSpec

_SEPARATORS = (",", "\t", ";", "|")
_PARQUET_BLOCK_ROWS = 2**18


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
    wanted = columns_of(spec)
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
        if name not in wanted and name != ROW_ID:
            raise ValueError(
                f"{file}: column {quoted(name)} is not in the schema. Add it (under keys, if it is no feature), "
                "or remove it from the file."
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
    Fields may be quoted by RFC 4180 and then hold separators and newlines.
    """
    file = check_readable_file(path, "a CSV file with a header line")
    try:
        text = read_first_line(file).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}, line 1: the header has bytes that are not UTF-8. Convert the file to UTF-8."
        ) from error
    wanted = set(columns_of(spec))
    try:
        splits = {separator: next(csv.reader([text], delimiter=separator), []) for separator in _SEPARATORS}
    except csv.Error as error:
        raise ValueError(f"{file}, line 1: no header of a CSV file ({error}). Mend the line.") from error
    separator = max(splits, key=lambda each: len(wanted.intersection(splits[each])))
    labelled = check_columns(str(file), splits[separator], spec, allow_unlabelled=allow_unlabelled)
    form = TextFormat(
        separator=separator.encode(),
        columns=tuple(splits[separator]),
        quote=b'"',
        has_header=True,
        numeric=frozenset([*spec.labels, *(column.name for column in spec.dense)]),
    )
    return TextSource(file, form, quarantine, chunk_bytes), labelled


class ParquetSource:
    """Rows of a Parquet file; ids of a bag may be lists or text with separators. A row's line is its number, from 1.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.file = str(path)
        self.rows_read = 0
        self._path = path

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`."""
        total = self._collect(pl.len()).item()
        for start in range(0, total, _PARQUET_BLOCK_ROWS):
            stop = min(start + _PARQUET_BLOCK_ROWS, total)
            numbers = np.arange(start, stop)
            self.rows_read = stop
            yield FrameBlock(
                load=functools.partial(self._load, start, stop - start),
                lines=numbers + 1,
                numbers=numbers,
                raw=functools.partial(self._raw, start),
            )

    def _load(self, start: int, length: int) -> pl.DataFrame:
        return plain_types(self._collect(pl.all(), start, length))

    def _raw(self, start: int, row: int) -> bytes:
        return row_as_text(self._collect(pl.all(), start + row, 1), 0)

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`."""
        return {line: row_as_text(self._collect(pl.all(), line - 1, 1), 0) for line in lines}

    def column_names(self) -> list[str]:
        """The columns of the file."""
        with parquet_errors(self.file):
            return pl.scan_parquet(self._path).collect_schema().names()

    def _collect(self, what: pl.Expr, start: int = 0, length: int | None = None) -> pl.DataFrame:
        with parquet_errors(self.file):
            return pl.scan_parquet(self._path).slice(start, length).select(what).collect()


def parquet_source(
    path: str | os.PathLike[str], spec: FeatureSpec, *, allow_unlabelled: bool = False
) -> tuple[ParquetSource, bool]:
    """Rows of a Parquet file; see `check_columns`."""
    source = ParquetSource(check_readable_file(path, "a Parquet file"))
    return source, check_columns(source.file, source.column_names(), spec, allow_unlabelled=allow_unlabelled)


@contextlib.contextmanager
def parquet_errors(file: str) -> Iterator[None]:
    """What polars says of a damaged file, as a ValueError that names it.

    Of some damage polars panics, which is no `Exception`; it has written lines of its own to stderr then.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(
            f"{file}: not a readable Parquet file ({shortened(str(error))}). Write it again, or set the right format."
        ) from error
