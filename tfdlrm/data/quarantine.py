"""Bad rows: why they are, and whether they are refused at once, or set aside in a file and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.data.columns import FRAME_NAME

QUARANTINE_FILE = "quarantine.tsv"
QUARANTINE_HEADER = "file\tline\tcolumn\treason\traw\n"

# Bad rows kept in memory for a report; all are counted, and all are written where there is a file.
KEPT_EXAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """One row that cannot be used.

    Args:
        file: where it stands.
        line: 1 for the first line (a header counts); for Parquet, 1 for the first row.
        column: the column at fault, "" where it is the whole row.
        value: the cell as found, or "" for the whole row.
        reason: what is wrong with it.
        fix: what to do about it, for the error.
        raw: the whole row as found; bytes that are not UTF-8 are kept.
    """

    file: str
    line: int
    column: str
    value: str
    reason: str
    fix: str
    raw: bytes = b""

    def message(self, *, can_be_set_aside: bool = True) -> str:
        """For an error: where, what, and the fix.

        Args:
            can_be_set_aside: the command has `--bad-rows`.
        """
        place = f"{self.file}, line {self.line}"
        if self.column:
            place += f", column {quoted(self.column)}"
        value = f" (found {quoted(_shortened(self.value))})" if self.column else ""
        how = 'bad_rows="quarantine"' if self.file == FRAME_NAME else "--bad-rows quarantine"
        aside = f" Or set bad rows aside: {how}." if can_be_set_aside else ""
        return f"{place}: {self.reason}{value}. {self.fix}{aside}"


class BadRowError(ValueError):
    """A row cannot be used and `bad_rows` is `error`.

    Attributes:
        row: the `BadRow`.
    """

    def __init__(self, row: BadRow) -> None:
        super().__init__(row.message())
        self.row = row


class Quarantine:
    """What a reader does with bad rows: raise at the first, or set all aside and count.

    Args:
        mode: `error` or `quarantine`.
        directory: where `quarantine.tsv` is written in mode `quarantine` (columns file, line, column, reason, raw;
            tab, newline and backslash in raw are escaped, bytes that are not UTF-8 appear as \\xNN). None counts
            only. A file of an earlier run is replaced; it is opened with the first bad row.

    Raises:
        BadRowError: from `add`, in mode `error`.

    Example:
        >>> quarantine = Quarantine("quarantine")
        >>> quarantine.add(BadRow(file="x.csv", line=2, column="age", value="a", reason="not a number", fix=""))
        >>> quarantine.count
        1
    """

    def __init__(
        self, mode: Literal["error", "quarantine"] = "error", directory: str | os.PathLike[str] | None = None
    ) -> None:
        if mode not in ("error", "quarantine"):
            raise ValueError(f"bad_rows={quoted(mode)} is not known. Choose one of: error, quarantine.")
        self.mode = mode
        self.count = 0
        self.examples: list[BadRow] = []
        self.path = Path(directory) / QUARANTINE_FILE if directory is not None else None
        self._stream: TextIO | None = None
        if mode == "quarantine" and self.path is not None:
            self.path.unlink(missing_ok=True)

    def add(self, row: BadRow) -> None:
        """Raise, or count the row and write it to the file."""
        self.add_all([row])

    def add_all(self, rows: Iterable[BadRow]) -> None:
        """`add` for every row; in mode `error` the one that comes first in its file is raised."""
        rows = sorted(rows, key=lambda row: row.line)
        if not rows:
            return
        if self.mode == "error":
            raise BadRowError(rows[0])
        self.count += len(rows)
        self.examples.extend(rows[: max(0, KEPT_EXAMPLES - len(self.examples))])
        if self.path is None:
            return
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("w", encoding="utf-8")
            self._stream.write(QUARANTINE_HEADER)
        for row in rows:
            self._stream.write(quarantine_line(row))
        self._stream.flush()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def quarantine_line(row: BadRow) -> str:
    """The row as a line of the quarantine file."""
    cells = [cell.encode() for cell in (row.file, str(row.line), row.column, row.reason)] + [row.raw]
    return "\t".join(_escaped(cell) for cell in cells) + "\n"


def _escaped(cell: bytes) -> str:
    # Only what would break the line is escaped: the rest of the raw row stays readable.
    for plain, escaped in ((b"\\", b"\\\\"), (b"\t", b"\\t"), (b"\n", b"\\n"), (b"\r", b"\\r")):
        cell = cell.replace(plain, escaped)
    return cell.decode("utf-8", "backslashreplace")


def _shortened(value: str, limit: int = 80) -> str:
    return value if len(value) <= limit else value[:limit] + "..."


class Problems:
    """Collects masks of bad rows.

    Args:
        num_rows: rows of the block.

    Example:
        >>> problems = Problems(3)
        >>> problems.mark(np.array([False, True, False]), "age", "not a number", "Give a number.")
        >>> problems.bad
        array([False,  True, False])
    """

    def __init__(self, num_rows: int) -> None:
        self.bad = np.zeros(num_rows, bool)
        self._marks: list[tuple[np.ndarray, str, str, str]] = []

    def mark(self, rows: np.ndarray, column: str, reason: str, fix: str) -> None:
        """Note the rows of a mask that are not bad already."""
        fresh = rows & ~self.bad
        if fresh.any():
            self.bad |= fresh
            self._marks.append((np.flatnonzero(fresh), column, reason, fix))

    def bad_rows(
        self,
        file: str,
        lines: np.ndarray,
        value: Callable[[str, int], str],
        raw: Callable[[int], bytes],
    ) -> list[BadRow]:
        """The rows found bad.

        Args:
            file: where the block comes from.
            lines: int64 [rows].
            value: (column, row) to the cell as found.
            raw: row to the whole row as found.
        """
        return [
            BadRow(
                file=file,
                line=int(lines[row]),
                column=column,
                value=value(column, int(row)),
                reason=reason,
                fix=fix,
                raw=raw(int(row)),
            )
            for rows, column, reason, fix in self._marks
            for row in rows
        ]
