"""CSV, Parquet and Arrow files, and frames, with a schema: columns are found by name, in any order."""

from __future__ import annotations

import collections
import contextlib
import csv
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfdlrm.checks import nearest, quoted, shortened
from tfdlrm.data.chunks import CHUNK_BYTES, check_readable_file, read_first_line
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.lines import TextFormat
from tfdlrm.data.parse import FrameBlock, row_as_text, typed_block
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.pyarrow_extra import damaged_file, pa, pq
from tfdlrm.data.quarantine import BadRow, Quarantine
from tfdlrm.data.sources import TextSource
from tfdlrm.schema import ROW_ID, FeatureSpec

_SEPARATORS = (",", "\t", ";", "|")
_TYPED_BLOCK_ROWS = 2**18
_NAMES = {"parquet": "Parquet", "arrow": "Arrow"}


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
            raise ValueError(
                f"{file}: column {quoted(name)} is not in the schema. Add it (under keys, if rows are found again by "
                "it, or under ignored), or remove it from the file."
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


class TypedSource:
    """Rows of a Parquet or Arrow file; ids of a bag may be lists or text with separators. A row's line is its number,
    from 1.

    Args:
        path: the file.
        data_format: `parquet`, or `arrow` for Arrow's IPC files (Feather).
        missing: texts of cells that are read as empty.
        ignored: columns that are passed over.
        quarantine: where damage goes that has whole rows before it; None to raise an error.
    """

    def __init__(
        self,
        path: Path,
        data_format: str,
        missing: Sequence[str] = (),
        ignored: Sequence[str] = (),
        quarantine: Quarantine | None = None,
    ) -> None:
        self.file = str(path)
        self._quarantine = quarantine
        self.rows_read = 0
        self._path, self._format = path, data_format
        self._missing, self._ignored = missing, ignored

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`."""
        for start, frame in self._whole_frames():
            numbers = np.arange(start, start + len(frame))
            self.rows_read = start + len(frame)
            yield typed_block(frame, numbers, missing=self._missing, ignored=self._ignored)

    def _whole_frames(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """`frames`, up to damage: it counts as one bad row, as that of a text file does."""
        try:
            yield from self.frames()
        except ValueError as error:
            if self._quarantine is None or self._quarantine.mode == "error" or not self.rows_read:
                raise
            reason = f"{shortened(str(error))}; every later row is lost"
            self.rows_read += 1
            fix = "Get a whole copy of the file."
            bad = BadRow(file=self.file, line=self.rows_read, column="", value="", reason=reason, fix=fix)
            self._quarantine.add(bad)

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`."""
        with open_typed(self._path, self._format) as file:
            ends = np.cumsum(file.counts())
        rows = np.unique(np.asarray(lines, np.int64)) - 1
        texts = {}
        for group in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
            for start, frame in self.frames(group):
                first, last = np.searchsorted(rows, [start, start + len(frame)])
                texts.update({row + 1: row_as_text(frame, row - start) for row in rows[first:last].tolist()})
        return texts

    def column_names(self) -> list[str]:
        """The columns of the file."""
        with open_typed(self._path, self._format) as file:
            return list(file.schema.names)

    def frames(self, group: int | None = None) -> Iterator[tuple[int, pl.DataFrame]]:
        """All columns of the file's rows, or of one group of them, in blocks: number of the first, and the columns."""
        with open_typed(self._path, self._format) as file:
            _refuse_what_panics(self.file, file.schema)
            counts = file.counts()
            start, stop = (0, sum(counts)) if group is None else (sum(counts[:group]), sum(counts[: group + 1]))
            for batch in file.batches(group):
                # pyarrow takes any bytes for text, and polars takes its word for it
                batch.validate(full=True)
                for first in range(0, batch.num_rows, _TYPED_BLOCK_ROWS):
                    yield start + first, pl.DataFrame(batch.slice(first, _TYPED_BLOCK_ROWS))
                start += batch.num_rows
            if start != stop:
                raise ValueError(f"{self.file}: its rows end at {start} of {stop} by its footer. Write it again.")


def typed_source(
    path: str | os.PathLike[str],
    data_format: str,
    spec: FeatureSpec,
    quarantine: Quarantine,
    *,
    allow_unlabelled: bool = False,
) -> tuple[TypedSource, bool]:
    """Rows of a Parquet or Arrow file; see `check_columns`."""
    file = check_readable_file(path, f"a file of {_NAMES[data_format]}")
    source = TypedSource(file, data_format, spec.raw.missing, spec.ignored, quarantine)
    return source, check_columns(source.file, source.column_names(), spec, allow_unlabelled=allow_unlabelled)


class TypedFile(NamedTuple):
    """An open file of typed columns.

    Args:
        schema: of the columns.
        counts: rows of each group that can be read by itself.
        batches: the rows of a group; of all where it is None.
    """

    schema: pa.Schema
    counts: Callable[[], list[int]]
    batches: Callable[[int | None], Iterator[pa.RecordBatch]]


@contextlib.contextmanager
def open_typed(path: Path, data_format: str) -> Iterator[TypedFile]:
    """A Parquet or Arrow file. What pyarrow says of damage, or polars of its columns, is a ValueError that names it.

    polars' own readers are not used: some damage makes them end the process.
    """
    of_polars = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
    fix = "Write it again, or set the right format."
    with damaged_file(path, f"a readable {_NAMES[data_format]} file", fix, *of_polars):
        if data_format == "parquet":
            with pq.ParquetFile(path, pre_buffer=False) as file:
                yield TypedFile(
                    file.schema_arrow,
                    functools.partial(_rows_of_groups, file),
                    lambda group: file.iter_batches(_TYPED_BLOCK_ROWS, row_groups=None if group is None else [group]),
                )
        else:
            with pa.OSFile(str(path)) as stream:
                reader = pa.ipc.open_file(stream)
                yield TypedFile(
                    reader.schema,
                    lambda: [reader.count_rows()],
                    lambda _group: map(reader.get_batch, range(reader.num_record_batches)),
                )


def _refuse_what_panics(file: str, schema: pa.Schema) -> None:
    """Of some columns polars says on stderr that it panics, before that can be caught."""
    for field in schema:
        _decode_names(field)
        if "decimal256" in str(field.type):
            raise ValueError(
                f"{file}: column {quoted(field.name)} is {shortened(str(field.type))}; no feature can be made of it. "
                "Write it as decimal128, as a float or as text."
            )


def _decode_names(field: pa.Field) -> None:
    """Raises UnicodeDecodeError where one is not UTF-8; `damaged_file` tells it."""
    _ = field.name
    for place in range(field.type.num_fields):
        _decode_names(field.type.field(place))


def _rows_of_groups(file: pq.ParquetFile) -> list[int]:
    """How many rows each row group has, by the footer: of the two counts there, the one that reading goes by."""
    counts = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    if any(count < 0 for count in counts):
        raise pa.ArrowInvalid(f"a row group of {min(counts)} rows")
    return counts


_BLOCK_ROWS = 2**18


def to_polars(frame: Any) -> pl.DataFrame:
    """A polars frame of a frame of pandas, a table of pyarrow, or columns by name; an index of pandas is left out.

    Raises:
        TypeError: it is none of these.
        ValueError: its columns cannot be read.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    is_columns, is_pandas = isinstance(frame, Mapping), hasattr(frame, "iloc")
    if not is_columns and not is_pandas and not hasattr(frame, "__arrow_c_stream__"):
        raise TypeError(
            f"rows are a {type(frame).__name__}, and a frame of polars or pandas, a table of pyarrow, or a mapping "
            "of columns is expected."
        )
    try:
        if is_pandas:  # by its Arrow stream it would come with its index
            found = pl.from_pandas(frame)
        else:
            found = pl.DataFrame(dict(frame) if is_columns else frame)
    # pyarrow's errors are ValueErrors, too, and polars' of mixed values TypeErrors
    except (pl.exceptions.PolarsError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"{FRAME_NAME}: {shortened(str(error))}. Give every column values of one type.") from error
    if not isinstance(found, pl.DataFrame):
        raise TypeError(f"rows are a {type(frame).__name__} of one column, and a frame is expected.")
    return found.rename({name: str(name) for name in found.columns})


class FrameSource:
    """Rows of a frame. A row's line is its number in the frame, from 1.

    Args:
        frame: the rows.
        spec: which columns are read, and how.
        order: rows in the order to read them; None for that of the frame.
    """

    file = FRAME_NAME

    def __init__(self, frame: pl.DataFrame, spec: FeatureSpec, order: np.ndarray | None = None) -> None:
        self.rows_read = 0
        self._frame = frame if order is None else frame[order]
        self._numbers = np.arange(len(frame)) if order is None else order
        self._spec = spec

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`."""
        for start in range(0, len(self._frame), _BLOCK_ROWS):
            block = self._frame[start : start + _BLOCK_ROWS]
            numbers = self._numbers[start : start + len(block)]
            self.rows_read = start + len(block)
            yield typed_block(block, numbers, missing=self._spec.raw.missing, ignored=self._spec.ignored)

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`."""
        places = {int(number) + 1: place for place, number in enumerate(self._numbers)}
        return {line: row_as_text(self._frame, places[line]) for line in lines}


def frame_source(
    frame: Any, spec: FeatureSpec, *, allow_unlabelled: bool = False, seed: int | None = None
) -> tuple[FrameSource, bool]:
    """Rows of a frame, in a random order if there is a seed, and whether they have labels; see `check_columns`."""
    rows = to_polars(frame)
    labelled = check_columns(FRAME_NAME, rows.columns, spec, allow_unlabelled=allow_unlabelled)
    order = None if seed is None else np.random.default_rng(seed).permutation(len(rows))
    return FrameSource(rows, spec, order), labelled
