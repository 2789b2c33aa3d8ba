"""Finding the rows of a block of text: a line each, or several where fields are quoted (RFC 4180).

With quotes a row cannot be found by looking at one line: whether a newline ends a row depends on the quotes
before it. Every line is therefore described twice, as if it began outside and as if it began inside a quoted
field, all lines at once; only lines with an odd number of quotes, which open or close a field over the end of the
line, are then walked one by one. A line that opens a field no later line closes properly is bad by itself and
swallows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
