"""Row sources: files read block by block into frames of raw columns, and parsed into `RawRows`."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tfdlrm.data.cells import hide_missing
from tfdlrm.data.chunks import CHUNK_BYTES
from tfdlrm.data.lines import LineReader, RowBlock, TextFormat
from tfdlrm.data.parse import FrameBlock, RawRows, RowParser
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.quarantine import BadRow, BadRowError, Quarantine
from tfdlrm.native.text import CriteoRows


class RowSource(Protocol):
    """One file of rows.

    Attributes:
        file: its name, for messages.
    """

    file: str

    @property
    def rows_read(self) -> int:
        """Rows found so far, good and bad."""

    def blocks(self) -> Iterator[FrameBlock]:
        """The rows that have all their columns, in order."""

    def raw_rows(self, lines: Sequence[int]) -> Mapping[int, bytes]:
        """The text of rows already read, by line."""


class TextSource:
    """CSV, TSV and the like.

    Args:
        path: plain or gzip.
        form: how rows are written.
        quarantine: where rows go that are bad as a whole.
        chunk_bytes: rows are handled in pieces of about this size.
    """

    def __init__(self, path: Path, form: TextFormat, quarantine: Quarantine, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.file = str(path)
        self._path = path
        self._form = form
        self._reader = LineReader(path, form, quarantine, chunk_bytes)

    @property
    def rows_read(self) -> int:
        """Rows found so far, good and bad."""
        return self._reader.rows_read

    @property
    def bytes_read(self) -> int:
        """Bytes of the file read so far."""
        return self._reader.bytes_read

    def blocks(self) -> Iterator[FrameBlock]:
        """See `RowSource`."""
        for block in self._reader.blocks():
            if block.parsed is not None:
                load = functools.partial(_frame_of, block.parsed, self._form)
            else:
                load = functools.partial(_parse_text, block.text, self._form)
            # numbers are read as such: only the text has them as they were found
            cell = functools.partial(_cell_of, block, self._form)
            yield FrameBlock(load=load, lines=block.lines, numbers=block.numbers, raw=block.raw, cell=cell)

    def raw_rows(self, lines: Sequence[int]) -> dict[int, bytes]:
        """See `RowSource`. Reads the file again: only rows found bad late need it."""
        wanted = set(lines)
        found: dict[int, bytes] = {}
        for block in LineReader(self._path, self._form, Quarantine("quarantine")).blocks():
            chosen = np.flatnonzero(np.isin(block.lines, lines))
            found |= {int(block.lines[row]): block.raw(int(row)) for row in chosen}
            if len(found) == len(wanted):
                break
        return found


def _cell_of(block: RowBlock, form: TextFormat, row: int, column: str) -> str:
    text, separator = block.raw(row).decode(), form.separator.decode()
    cells = text.split(separator)
    if form.quote:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=form.quote.decode()))
    return cells[form.columns.index(column)]


def _frame_of(parsed: CriteoRows, form: TextFormat) -> pl.DataFrame:
    label, *names = form.columns
    columns = [pl.Series(label, parsed.labels)]
    columns += [pl.Series(n, v, nan_to_null=True) for n, v in zip(names, parsed.dense, strict=False)]
    columns += [pl.Series(n, v) for n, v in zip(names[len(parsed.dense) :], parsed.tokens, strict=True)]
    return pl.DataFrame(columns)


def _parse_text(text: bytes, form: TextFormat) -> pl.DataFrame:
    """Rows of the right number of fields as columns: text, and numbers where all cells of the block are some."""
    read = functools.partial(
        pl.read_csv,
        text,
        has_header=False,
        new_columns=list(form.columns),
        separator=form.separator.decode(),
        quote_char=form.quote.decode() or None,
        infer_schema=False,
    )
    if form.numeric:
        # Twice as fast as text first and numbers later. What it refuses is looked at cell by cell.
        try:
            numbers = dict.fromkeys(form.numeric.intersection(form.columns), pl.Float64)
            return hide_missing(read(schema_overrides=numbers), form.missing)
        except pl.exceptions.ComputeError:
            pass
    return hide_missing(read(), form.missing)


def parse_block(parser: RowParser, block: FrameBlock, source: RowSource) -> RawRows:
    """The good rows of a block of a source.

    Raises:
        BadRowError: a bad row, if the quarantine's mode is `error`.
        ValueError: a whole column has the wrong type; the file is named.
    """
    try:
        return parser.parse(block, file=source.file)
    except BadRowError:
        raise
    except ValueError as error:
        raise ValueError(f"{source.file}: {error}") from error


def report_late(rows: Sequence[BadRow], source: RowSource, quarantine: Quarantine) -> None:
    """Hands rows that were found bad after their block was left behind to the quarantine, with their raw text.

    Args:
        rows: of the source, without raw text.
        source: finds that again.
        quarantine: where they go.

    Raises:
        BadRowError: of the first row, if the quarantine's mode is `error`.
    """
    wanted = [min(rows, key=lambda row: row.line)] if quarantine.mode == "error" else rows
    raw = source.raw_rows([row.line for row in wanted])
    quarantine.add_all(replace(row, raw=raw.get(row.line, b"")) for row in wanted)
