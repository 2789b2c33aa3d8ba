"""How many rows a file has, before it is parsed: groups of equal size need to know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfdlrm.config.data import DataConfig
from tfdlrm.data.chunks import DamagedFileError, check_readable_file, read_chunks
from tfdlrm.data.prepared_folders import read_manifest
from tfdlrm.data.tabular import open_parquet, rows_of_groups

_NEWLINE, _QUOTE = ord("\n"), ord('"')


def count_parquet_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    with open_parquet(path) as file:
        return sum(rows_of_groups(file))


def count_text_rows(path: Path, *, has_header: bool, quoted: bool, most: int | None = None) -> int:
    """Rows of a text file, good and bad, plain or gzip. Blank lines at the end are none.

    Exact, but where quotes are out of place: a newline is taken for the end of a row if an even number of quotes
    stands before it.

    Args:
        path: the file.
        has_header: its first line is no row.
        quoted: fields may stand in quotes and then hold newlines.
        most: stop once there are so many.
    """
    ends = blank_ends = 0
    within_quotes = False
    any_text = False
    try:
        for chunk in read_chunks(path):
            body = chunk.rstrip(b"\r\n")
            tail = chunk[len(body) :].count(b"\n")
            if body:
                newlines, within_quotes = _row_ends(body, within_quotes) if quoted else (body.count(b"\n"), False)
                ends += blank_ends + newlines
                blank_ends, any_text = tail, True
            else:
                blank_ends += tail
            if most is not None and ends > most + has_header:
                break
    except DamagedFileError:
        pass  # the reader reports it; what was readable has been counted
    rows = max(0, ends + any_text - has_header)
    return rows if most is None else min(rows, most)


def count_training_rows(config: DataConfig) -> int | None:
    """About how many rows a config's data train on: of raw files bad rows count, too; None where that is not told.

    Raises:
        FileNotFoundError, ValueError: the data are not there, or damaged.
    """
    if config.path is None:
        return None
    path = Path(config.path)
    if config.format == "prepared":
        return read_manifest(path)["parts"].get("train", {"rows": None})["rows"]
    if config.format == "parquet":
        rows = count_parquet_rows(path)
    elif config.format in ("criteo", "csv", "avazu"):
        has_header = config.format != "criteo" and not (config.schema is not None and config.schema.raw.columns)
        rows = count_text_rows(check_readable_file(path, "a data file"), has_header=has_header, quoted=has_header)
    else:
        return None
    rows = rows if config.max_rows is None else min(rows, config.max_rows)
    return rows if config.split == "none" else int(rows * config.train_fraction)


def _row_ends(body: bytes, within_quotes: bool) -> tuple[int, bool]:
    """Newlines outside quotes, and whether the text ends within them."""
    if b'"' not in body:
        return (0 if within_quotes else body.count(b"\n")), within_quotes
    codes = np.frombuffer(body, np.uint8)
    quotes = np.flatnonzero(codes == _QUOTE)
    before = np.searchsorted(quotes, np.flatnonzero(codes == _NEWLINE)) + within_quotes
    return int(np.count_nonzero(before % 2 == 0)), bool((len(quotes) + within_quotes) % 2)


def section_ends(num_rows: int, num_sections: int) -> np.ndarray:
    """int64 [num_sections], the row after each of equal contiguous groups; the first get the remainder.

    Example:
        >>> section_ends(7, 3)
        array([3, 5, 7])
    """
    whole, rest = divmod(num_rows, num_sections)
    return np.cumsum([whole + (section < rest) for section in range(num_sections)], dtype=np.int64)


def sections_of(positions: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """int64 [N], the group of rows at these positions; rows behind the last end are of the last group."""
    return np.minimum(np.searchsorted(ends, positions, side="right"), len(ends) - 1).astype(np.int64)
