"""Typed columns: Parquet and Arrow files, and frames of pandas, polars and pyarrow."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfdlrm.checks import quoted, shortened
from tfdlrm.data.chunks import check_readable_file
from tfdlrm.data.columns import FRAME_NAME
from tfdlrm.data.parse import FrameBlock, row_as_text, typed_block
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.pyarrow_extra import damaged_file, pa, pq
from tfdlrm.data.quarantine import BadRow, Quarantine
from tfdlrm.data.raw_formats import ARROW_MAGIC
from tfdlrm.data.tabular import check_columns
from tfdlrm.schema import FeatureSpec

_BLOCK_ROWS = 2**18
_MOST_DIGITS = 38  # of decimal128
_NAMES = {"parquet": "Parquet", "arrow": "Arrow"}


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
            readable = _readable(self.file, file.schema)
            counts = file.counts()
            start, stop = (0, sum(counts)) if group is None else (sum(counts[:group]), sum(counts[: group + 1]))
            for batch in file.batches(group):
                # pyarrow takes any bytes for text, and polars takes its word for it
                batch.validate(full=True)
                batch = batch if readable is file.schema else batch.cast(readable)
                for first in range(0, batch.num_rows, _BLOCK_ROWS):
                    yield start + first, pl.DataFrame(batch.slice(first, _BLOCK_ROWS))
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
                    lambda group: file.iter_batches(_BLOCK_ROWS, row_groups=None if group is None else [group]),
                )
        else:
            with path.open("rb") as bytes_of:
                bytes_of.seek(max(0, path.stat().st_size - len(ARROW_MAGIC)))
                if bytes_of.read() != ARROW_MAGIC:
                    raise ValueError(f"{path}: does not end as an Arrow file does: it was cut off. Get a whole copy.")
            with pa.OSFile(str(path)) as stream:
                reader = pa.ipc.open_file(stream)
                yield TypedFile(
                    reader.schema,
                    lambda: [reader.count_rows()],
                    lambda _group: map(reader.get_batch, range(reader.num_record_batches)),
                )


def _readable(file: str, schema: pa.Schema) -> pa.Schema:
    """The types that polars reads columns by: of some it says on stderr that it panics, before that can be caught."""
    types = []
    for field in schema:
        _decode_names(field)
        kind = field.type
        if pa.types.is_decimal256(kind) and kind.scale <= _MOST_DIGITS:
            kind = pa.decimal128(_MOST_DIGITS, kind.scale)  # refuses numbers that do not fit
        elif "decimal256" in str(kind):
            raise ValueError(
                f"{file}: column {quoted(field.name)} is {shortened(str(kind))}; no feature can be made of it. "
                "Write it as decimal128, as a float or as text."
            )
        elif pa.types.is_date64(kind):
            kind = pa.date32()
        types.append(field.with_type(kind).with_nullable(True))  # whatever the file says of it
    # to cast costs time, and is needed by few files
    changed = any(own.type != field.type for own, field in zip(types, schema, strict=True))
    return pa.schema(types, schema.metadata) if changed else schema


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
    readable = _readable(FRAME_NAME, frame.schema) if isinstance(frame, pa.Table) else None
    try:
        if is_pandas:  # by its Arrow stream it would come with its index
            found = pl.from_pandas(frame)
        elif readable is not None:
            found = pl.DataFrame(frame.cast(readable))
        else:
            found = pl.DataFrame(dict(frame) if is_columns else frame)
    except _UNREADABLE as error:
        raise ValueError(f"{FRAME_NAME}: {_why_unreadable(frame, error)}") from error
    if not isinstance(found, pl.DataFrame):
        raise TypeError(f"rows are a {type(frame).__name__} of one column, and a frame is expected.")
    return found.rename({name: str(name) for name in found.columns})


# pyarrow's errors are ValueErrors, too, and polars' of mixed values TypeErrors
_UNREADABLE = (pl.exceptions.PolarsError, ValueError, OverflowError, TypeError)


def _why_unreadable(frame: Any, error: BaseException) -> str:
    columns: list[tuple[str, Callable[[], Any]]] = []
    if hasattr(frame, "iloc"):
        columns = [
            (str(name), functools.partial(pl.from_pandas, frame.iloc[:, [place]]))
            for place, name in enumerate(frame.columns)
        ]
    elif isinstance(frame, Mapping):
        columns = [(str(name), functools.partial(pl.Series, values)) for name, values in frame.items()]
    for name, count in collections.Counter(name for name, _ in columns).items():
        if count > 1:
            return f"{count} columns are called {quoted(name)}. Rename all but one."
    for name, convert in columns:
        try:
            convert()
        except _UNREADABLE as own:
            return f"column {quoted(name)}: {shortened(str(own)).rstrip('.')}. Give it values of one type."
    return f"{shortened(str(error)).rstrip('.')}. Give every column values of one type, and as many as the others."


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
