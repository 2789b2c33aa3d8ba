"""Text files as bytes, plain, gzip or Zstandard: chunks of them, and where rows begin in those."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

CHUNK_BYTES = 16 * 2**20  # rows handled at once: large enough that NumPy and polars work on long arrays
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BYTES = 2**16  # a call that meets an error gives nothing, so that calls are short
_UNPACKED_BYTES = 2**22  # of one call: a block of zeros unpacks to a thousand times its size
MAX_HEADER_BYTES = 2**20
_GZIP_WINDOW_BITS = 31  # zlib's number for "a gzip header and a 32 kB window"


class DamagedFileError(Exception):
    """The compressed stream ends early or is corrupt; everything readable was delivered before.

    Attributes:
        reason: what is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_readable_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path of an existing, non-empty file.

    Raises:
        FileNotFoundError, IsADirectoryError: named, with what to give instead.
        ValueError: the file is empty, or no file.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder, where {what} is expected. Give the file itself.")
    if not path.exists():
        near = path.parent if path.parent.is_dir() else None
        hint = f" Files there: {_listing(near)}." if near else f" The folder {path.parent} does not exist either."
        raise FileNotFoundError(f"{path}: there is no such file ({what} is expected).{hint}")
    if not path.is_file():
        raise ValueError(f"{path}: a device, a pipe or a socket, where {what} is expected. Give the file itself.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes). Give {what} with at least one row.")
    return path


def _listing(directory: Path, limit: int = 8) -> str:
    names = sorted(entry.name for entry in directory.iterdir())
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "none"


def read_chunks(
    path: Path, chunk_bytes: int = CHUNK_BYTES, on_read: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """The bytes of a file, decompressed if it begins as gzip or Zstandard do (whatever its name).

    Where lines end in carriage returns alone, as old spreadsheets write them, those become newlines.

    Args:
        path: the file.
        chunk_bytes: about so many, decompressed, at once.
        on_read: told how many bytes of the file were read, again and again.

    Raises:
        DamagedFileError: after the last readable byte was yielded.
    """
    with path.open("rb") as stream:
        magic = stream.read(len(_ZSTD_MAGIC))
        stream.seek(0)
        raw = _counted(stream, on_read)
        if magic.startswith(_GZIP_MAGIC):
            pieces = _gunzip(raw)
        elif magic == _ZSTD_MAGIC:
            pieces = _unzstd(stream, on_read)
        else:
            pieces = raw
        held: list[bytes] = []
        num_held = 0
        damage: DamagedFileError | None = None
        returns: bool | None = None  # whether lines end in carriage returns alone
        while True:
            try:
                piece = next(pieces, None)
            except DamagedFileError as error:
                piece, damage = None, error
            if piece:
                if returns is None:
                    returns = _ends_in_returns(piece)
                piece = piece.replace(b"\r", b"\n") if returns else piece
                held.append(piece)
                num_held += len(piece)
            if num_held and (piece is None or num_held >= chunk_bytes):
                yield b"".join(held)
                held, num_held = [], 0
            if damage is not None:
                raise damage
            if piece is None:
                return


def _ends_in_returns(text: bytes) -> bool:
    """Whether the first line, and most, end in a carriage return alone; newlines may be within quotes."""
    first, newlines = text.find(b"\r"), text.count(b"\n")
    if not 0 <= first < len(text) - 1 or b"\n" in text[: first + 2]:
        return False
    return text.count(b"\r") - text.count(b"\r\n") > newlines


def read_first_line(path: Path) -> bytes:
    """The first line of a text file, without byte order mark and line end.

    Raises:
        ValueError: nothing can be decompressed, there is no text, or no end within `MAX_HEADER_BYTES`.
    """
    line = b""
    try:
        for chunk in read_chunks(path, 1):
            line += chunk
            if b"\n" in chunk:
                break
            if len(line) > MAX_HEADER_BYTES:
                raise ValueError(
                    f"{path}: no end of the first line within {MAX_HEADER_BYTES // 2**20} MiB. Is it a text file? Give "
                    "one with a row a line."
                )
    except DamagedFileError as error:
        raise ValueError(f"{path}: {error.reason} before the end of the first line. Get a whole copy.") from error
    if not line:
        raise ValueError(f"{path}: the file is empty. Give one with at least one row.")
    return line.partition(b"\n")[0].removeprefix(BYTE_ORDER_MARK).removesuffix(b"\r")


def _counted(stream: BinaryIO, on_read: Callable[[int], None] | None) -> Iterator[bytes]:
    while data := stream.read(_READ_BYTES):
        if on_read is not None:
            on_read(len(data))
        yield data


def _unzstd(stream: BinaryIO, on_read: Callable[[int], None] | None) -> Iterator[bytes]:
    from tfdlrm.data.pyarrow_extra import pa

    before = 0
    try:
        with pa.CompressedInputStream(stream, "zstd") as plain:
            while piece := plain.read(_ZSTD_BYTES):
                if on_read is not None:
                    on_read(stream.tell() - before)
                    before = stream.tell()
                yield piece
    except OSError as error:
        raise DamagedFileError(f"the Zstandard data are cut off or corrupt ({error})") from error


def _gunzip(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Members one after another. GzipFile is no use here: at an early end it loses what it has decompressed."""
    member = zlib.decompressobj(_GZIP_WINDOW_BITS)
    within = False
    for data in stream:
        piece = b""
        while data or len(piece) == _UNPACKED_BYTES:  # the rest of a full piece may be in zlib alone
            if member.eof:
                data = data.lstrip(b"\0")  # padding that tape and block writers leave between members
                if not data:
                    break
                member = zlib.decompressobj(_GZIP_WINDOW_BITS)
            before = member.copy()
            try:
                piece = member.decompress(data, _UNPACKED_BYTES)
            except zlib.error as error:
                yield from _readable(before, data)
                raise DamagedFileError(f"the gzip data are corrupt ({error})") from error
            within = not member.eof
            yield piece
            data = member.unused_data if member.eof else member.unconsumed_tail
    if within:
        raise DamagedFileError("the gzip file ends early: it was cut off")


def _readable(member: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What stands before an error, but for the last byte where that is a wrong checksum.

    zlib keeps back the whole output of a call that fails, so ever shorter calls are made.
    """
    for num_bytes in (2**16, 2**8, 1):
        while True:
            attempt = member.copy()
            try:
                piece = attempt.decompress(data, num_bytes)
            except zlib.error:
                break
            member, data = attempt, attempt.unconsumed_tail
            yield piece
            if not piece and not data:
                return


# Lines a quoted field may span. A longer one is taken for a forgotten quote.
MAX_LINES_A_ROW = 1000


@dataclass(frozen=True, kw_only=True)
class RowBounds:
    """Rows of a block, good and bad.

    Args:
        lines: int64 [rows], line of the block each begins on, from 0.
        starts, ends: int64 [rows], first byte and final newline.
        fields: int64 [rows], number of fields.
        bad_quotes: bool [rows], a quote is out of place or not closed.
    """

    lines: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    fields: np.ndarray
    bad_quotes: np.ndarray

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, rows: slice) -> RowBounds:
        """Some of the rows."""
        return RowBounds(
            lines=self.lines[rows],
            starts=self.starts[rows],
            ends=self.ends[rows],
            fields=self.fields[rows],
            bad_quotes=self.bad_quotes[rows],
        )


def line_bounds(codes: np.ndarray, separator: int) -> RowBounds:
    """A row a line, for text without quotes.

    Args:
        codes: uint8 [bytes], whole lines.
        separator: its byte.
    """
    marks = np.flatnonzero((codes == ord("\n")) | (codes == separator))
    # position among the marks of every line's end: the marks between two of them separate the fields of a row
    last = np.flatnonzero(np.take(codes, marks) == ord("\n"))
    ends = np.take(marks, last)
    return RowBounds(
        lines=np.arange(len(ends)),
        starts=np.concatenate([[0], ends + 1])[:-1],
        ends=ends,
        fields=np.diff(last, prepend=-1),
        bad_quotes=np.zeros(len(ends), bool),
    )


def _lines(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends = np.flatnonzero(codes == ord("\n"))
    return np.concatenate([[0], ends + 1])[:-1], ends


def quoted_bounds(
    codes: np.ndarray, separator: int, quote: int, num_columns: int, final: bool
) -> tuple[RowBounds, int]:
    """Rows of one or more lines, for text with quotes.

    Args:
        codes: uint8 [bytes], whole lines.
        separator, quote: their bytes.
        num_columns: fields a row should have; a row of several lines with another number is not believed.
        final: no more lines follow.

    Returns:
        The rows, and the number of bytes they cover: a row that begins there is not complete yet.
    """
    starts, ends = _lines(codes)
    num_lines = len(ends)
    quotes = np.flatnonzero(codes == quote)
    quote_line = np.searchsorted(ends, quotes)
    num_quotes = np.bincount(quote_line, minlength=num_lines)
    quotes_before_line = np.cumsum(num_quotes) - num_quotes
    second_of_pair = (np.arange(len(quotes)) - quotes_before_line[quote_line]) % 2 == 1

    # A quote that opens follows a separator or the line's start, one that closes comes before a separator or the
    # line's end; between two quotes lies an escaped one.
    before = codes[np.maximum(quotes - 1, 0)]
    after = codes[np.minimum(quotes + 1, len(codes) - 1)]
    may_open = (quotes == starts[quote_line]) | (before == separator) | (before == quote)
    may_close = (after == separator) | (after == ord("\n")) | (after == quote)
    wrong_outside = np.bincount(quote_line[~np.where(second_of_pair, may_close, may_open)], minlength=num_lines) > 0
    wrong_inside = np.bincount(quote_line[~np.where(second_of_pair, may_open, may_close)], minlength=num_lines) > 0

    separators = np.flatnonzero(codes == separator)
    separator_line = np.searchsorted(ends, separators)
    within = (np.searchsorted(quotes, separators) - quotes_before_line[separator_line]) % 2 == 1
    splits_outside = np.bincount(separator_line[~within], minlength=num_lines)
    splits_inside = np.bincount(separator_line[within], minlength=num_lines)

    begins = np.ones(num_lines, bool)
    fields = splits_outside + 1
    bad = wrong_outside.copy()
    inside_before = np.concatenate([[0], np.cumsum(splits_inside)])
    wrong_before = np.concatenate([[0], np.cumsum(wrong_inside)])
    odd = np.flatnonzero(num_quotes % 2)
    position = 0
    while position < len(odd):
        opener = odd[position]
        if wrong_outside[opener]:
            position += 1
            continue
        if position + 1 < len(odd):
            closer = odd[position + 1]
            found = splits_outside[opener] + inside_before[closer + 1] - inside_before[opener + 1] + 1
            proper = wrong_before[closer + 1] == wrong_before[opener + 1] and closer - opener < MAX_LINES_A_ROW
            if proper and found == num_columns:
                begins[opener + 1 : closer + 1] = False
                fields[opener] = found
                position += 2
                continue
        elif not final and num_lines - opener < MAX_LINES_A_ROW:
            num_lines = int(opener)
            break
        bad[opener] = True
        position += 1

    first = np.flatnonzero(begins[:num_lines])
    last = np.append(first[1:] - 1, num_lines - 1) if len(first) else first
    bounds = RowBounds(lines=first, starts=starts[first], ends=ends[last], fields=fields[first], bad_quotes=bad[first])
    return bounds, int(ends[num_lines - 1]) + 1 if num_lines else 0
