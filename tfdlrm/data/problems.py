"""Which rows of a block are bad, and why: the first reason found for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfdlrm.data.quarantine import BadRow


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
