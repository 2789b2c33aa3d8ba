"""Text files as blocks of checked rows.

Rows are found, counted and checked (number of fields, quotes, UTF-8, NUL bytes) in whole blocks with NumPy; what
is delivered parses without surprises, and every row that does not is reported with its line.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdlrm.data.chunks import (
    BYTE_ORDER_MARK,
    CHUNK_BYTES,
    DamagedFileError,
    RowBounds,
    line_bounds,
    quoted_bounds,
    read_chunks,
)
from tfdlrm.data.quarantine import BadRow, Quarantine
from tfdlrm.native.text import CriteoRows, criteo_rows

# A longer row is no row: without a limit, a file without newlines would be held in memory whole.
MAX_ROW_BYTES = 64 * 2**20
MOST_BLANK_LINES = 1_000_000  # in a row; each is kept until it is known whether a row follows

# (reason, fix) of rows that are bad as a whole
_BLANK = ("a blank line between rows", "Remove it.")
_BAD_QUOTES = (
    "a quote stands in the middle of a field or is never closed",
    "Put fields that hold quotes, separators or newlines in quotes, and double the quotes inside.",
)
_NOT_UTF8 = ("bytes that are not UTF-8", "Convert the file to UTF-8.")
_HAS_NUL = ("a NUL byte", "Remove it, or convert the file to UTF-8 if it is UTF-16.")


@dataclass(frozen=True, kw_only=True)
class TextFormat:
    """How rows are written.

    Args:
        separator: between fields, one byte.
        columns: names of the fields, in order.
        quote: the byte around fields that hold separators or newlines, b"" for none.
        has_header: the first line holds names and is no row.
        encoding: `utf-8` or `latin-1`.
        numeric: fields that should be numbers. They are read as such at once where a whole block allows it.
        criteo: numbers of integer and of hex columns, where rows are a label and these, as Criteo's are.
        missing: texts of fields that are read as empty.
    """

    separator: bytes
    columns: tuple[str, ...]
    quote: bytes = b""
    has_header: bool = False
    encoding: str = "utf-8"
    numeric: frozenset[str] = frozenset()
    criteo: tuple[int, int] | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RowBlock:
    """Rows that have the right number of fields.

    Args:
        text: the rows as UTF-8, a newline after each.
        lines: int64 [rows], the line each begins on, from 1.
        numbers: int64 [rows], number of each among all rows read, good and bad, from 0.
        row_starts: int64 [rows + 1], where each begins in `text`; None where each is one line.
        parsed: the rows as numbers, where they are known already.
    """

    text: bytes
    lines: np.ndarray
    numbers: np.ndarray
    row_starts: np.ndarray | None = None
    parsed: CriteoRows | None = None

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """int64 [rows + 1], where each row begins in `text`."""
        if self.row_starts is not None:
            return self.row_starts
        return np.concatenate([[0], np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n")) + 1])

    def raw(self, row: int) -> bytes:
        """One row as found, without its newline."""
        return self.text[self.starts[row] : self.starts[row + 1] - 1]


class LineReader:
    """Reads one text file as `RowBlock`s; bad rows go to the quarantine.

    Blank lines at the end of the file are no rows; elsewhere they are bad ones. CRLF ends a line as LF does.

    Args:
        path: plain or gzip.
        form: how rows are written.
        quarantine: where bad rows go.
        chunk_bytes: rows are handled in pieces of about this size.

    Attributes:
        rows_read: rows found so far, good and bad.
        bytes_read: bytes of the file read so far, compressed ones where it is compressed.
    """

    def __init__(self, path: Path, form: TextFormat, quarantine: Quarantine, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._path = path
        self._form = form
        self._quarantine = quarantine
        self._chunk_bytes = chunk_bytes
        self._line = 1  # of the first byte not yet handled
        self._blank_lines: list[int] = []  # seen, and bad if a row follows
        self.rows_read = 0
        self.bytes_read = 0

    def blocks(self) -> Iterator[RowBlock]:
        """The good rows, in order.

        Raises:
            BadRowError: a bad row, if the quarantine's mode is `error`.
        """
        carried = b""
        damage: str | None = None
        chunks = read_chunks(self._path, self._chunk_bytes, on_read=self._count_bytes)
        first = True
        while True:
            try:
                chunk = next(chunks, None)
            except DamagedFileError as error:
                chunk, damage = None, error.reason
            final = chunk is None
            text = carried + (chunk or b"")
            if first:
                text = text.removeprefix(BYTE_ORDER_MARK)
                first = False
            if damage is not None:
                # The last line is not whole, however it looks.
                text, _, cut = text.rpartition(b"\n")
                text += b"\n" if text else b""
            elif final and text and not text.endswith(b"\n"):
                text += b"\n"
            if len(carried) > MAX_ROW_BYTES:
                raise ValueError(
                    f"{self._path}, line {self._line}: no end of the row within {MAX_ROW_BYTES // 2**20} MiB. "
                    "Is it a text file? Give one with a row a line."
                )
            block, carried = self._take_rows(text, final)
            if len(block.lines):
                yield block
            if damage is not None:
                self._report_damage(damage, cut)
            if final:
                return

    def _count_bytes(self, number: int) -> None:
        self.bytes_read += number

    def _take_rows(self, text: bytes, final: bool) -> tuple[RowBlock, bytes]:
        """The good rows of the whole lines in `text`, and the rest."""
        end = text.rfind(b"\n") + 1
        body, rest = text[:end], text[end:]
        if self._form.criteo is not None and not self._blank_lines:
            parsed = criteo_rows(body, *self._form.criteo)
            if parsed is not None:
                return self._plain_rows(body, parsed), rest
        if b"\r" in body:
            body = body.replace(b"\r\n", b"\n")
        if self._form.encoding == "latin-1":
            body = body.decode("latin-1").encode()
        codes = np.frombuffer(body, np.uint8)
        separator, quote = self._form.separator[0], self._form.quote
        if quote and quote in body:
            bounds, covered = quoted_bounds(codes, separator, quote[0], len(self._form.columns), final)
            # A row whose quoted field is still open waits for the next chunk.
            held = body[covered:]
            rest = (held.decode().encode("latin-1") if self._form.encoding == "latin-1" else held) + rest
            body = body[:covered]
        else:
            bounds = line_bounds(codes, separator)
        lines = bounds.lines + self._line
        self._line += body.count(b"\n")
        if self._form.has_header and len(lines) and lines[0] == 1:
            bounds, lines = bounds.select(slice(1, None)), lines[1:]
        keep = self._without_trailing_blanks(bounds, lines)
        bounds, lines = bounds.select(slice(keep)), lines[:keep]
        numbers = np.arange(self.rows_read, self.rows_read + keep)
        self.rows_read += keep
        return self._without_bad_rows(body, bounds, lines, numbers), rest

    def _plain_rows(self, body: bytes, parsed: CriteoRows) -> RowBlock:
        places = np.arange(len(parsed.labels))
        lines, numbers = places + self._line, places + self.rows_read
        self._line += len(places)
        self.rows_read += len(places)
        return RowBlock(text=body, lines=lines, numbers=numbers, parsed=parsed)

    def _without_trailing_blanks(self, bounds: RowBounds, lines: np.ndarray) -> int:
        """Rows up to the last that is not blank; reports blank lines of earlier chunks once a row follows them."""
        filled = np.flatnonzero(bounds.starts != bounds.ends)
        keep = int(filled[-1]) + 1 if len(filled) else 0
        if keep and self._blank_lines:
            self.rows_read += len(self._blank_lines)
            self._quarantine.add_all(self._bad_row(line, b"", *_BLANK) for line in self._blank_lines)
            self._blank_lines = []
        if len(self._blank_lines) + len(lines) - keep > MOST_BLANK_LINES:
            raise ValueError(
                f"{self._path}, line {int(lines[-1])}: more than {MOST_BLANK_LINES:,} blank lines. Is it a text file? "
                "Give one with a row a line."
            )
        self._blank_lines.extend(int(line) for line in lines[keep:])
        return keep

    def _without_bad_rows(self, body: bytes, bounds: RowBounds, lines: np.ndarray, numbers: np.ndarray) -> RowBlock:
        if not len(bounds):
            return RowBlock(text=b"", lines=lines, numbers=numbers)
        undecodable, has_nul = _bad_bytes(body, bounds)
        wrong = (bounds.fields != len(self._form.columns)) | bounds.bad_quotes | undecodable | has_nul
        wrong |= bounds.starts == bounds.ends
        if not wrong.any():
            begin, stop = int(bounds.starts[0]), int(bounds.ends[-1]) + 1
            starts = np.append(bounds.starts, stop) - begin
            return RowBlock(text=body[begin:stop], lines=lines, numbers=numbers, row_starts=starts)
        bad = []
        for row in np.flatnonzero(wrong):
            raw = body[bounds.starts[row] : bounds.ends[row]]
            if not raw:
                reason, fix = _BLANK
            elif bounds.bad_quotes[row]:
                reason, fix = _BAD_QUOTES
            elif undecodable[row]:
                reason, fix = _NOT_UTF8
            elif has_nul[row]:
                reason, fix = _HAS_NUL
            else:
                reason, fix = self._wrong_number(int(bounds.fields[row]))
            bad.append(self._bad_row(int(lines[row]), raw, reason, fix))
        self._quarantine.add_all(bad)
        good = np.flatnonzero(~wrong)
        pieces = [body[bounds.starts[row] : bounds.ends[row] + 1] for row in good]
        starts = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
        return RowBlock(text=b"".join(pieces), lines=lines[good], numbers=numbers[good], row_starts=starts)

    def _wrong_number(self, fields: int) -> tuple[str, str]:
        columns = self._form.columns
        what = "a column is missing or the line was cut" if fields < len(columns) else "there is an extra column"
        names = columns if len(columns) <= 8 else (*columns[:4], "...", *columns[-3:])
        reason = f"{fields} fields where {len(columns)} are expected: {what}"
        return reason, f"Mend the line; the columns are {', '.join(names)}."

    def _bad_row(self, line: int, raw: bytes, reason: str, fix: str) -> BadRow:
        return BadRow(file=str(self._path), line=line, column="", value="", reason=reason, fix=fix, raw=raw)

    def _report_damage(self, reason: str, cut: bytes) -> None:
        self.rows_read += 1
        lost = f"{reason}; every later row is lost"
        self._quarantine.add(self._bad_row(self._line, cut, lost, "Get a whole copy of the file."))


def _bad_bytes(body: bytes, bounds: RowBounds) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are not UTF-8, and which have a NUL byte."""
    codes = np.frombuffer(body, np.uint8)
    undecodable = np.zeros(len(bounds), bool)
    has_nul = np.zeros(len(bounds), bool)
    if b"\0" in body:
        has_nul[_rows_at(codes == 0, bounds)] = True
    try:
        body.decode()
    except UnicodeDecodeError:
        for row in _rows_at(codes >= 0x80, bounds):
            try:
                body[bounds.starts[row] : bounds.ends[row]].decode()
            except UnicodeDecodeError:
                undecodable[row] = True
    return undecodable, has_nul


def _rows_at(where: np.ndarray, bounds: RowBounds) -> np.ndarray:
    rows = np.unique(np.searchsorted(bounds.ends, np.flatnonzero(where)))
    return rows[rows < len(bounds)]
