"""Label rates: of everything, by part, by group of the file and by day; and how many rows a file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfdlrm.config.data import DataConfig
from tfdlrm.data.chunks import DamagedFileError, check_readable_file, read_chunks
from tfdlrm.data.inspect.blocks import InspectBlock, in_order
from tfdlrm.data.inspect.report import LabelRate, LabelStats
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepared_folders import read_manifest
from tfdlrm.data.raw_formats import TYPED_FORMATS
from tfdlrm.data.typed import open_typed

_NEWLINE, _QUOTE = ord("\n"), ord('"')


def count_typed_rows(path: Path, data_format: str) -> int:
    """Rows of a Parquet or Arrow file, by what it says of itself."""
    with open_typed(path, data_format) as file:
        return sum(file.counts())


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
    if config.format in TYPED_FORMATS:
        rows = count_typed_rows(path, config.format)
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


# Ten years; a column of more days is no column of days.
MAX_DAYS = 3660
_UNKNOWN_DAY = "unknown"


class LabelTally:
    """Counts labels.

    Args:
        num_tasks: labels.
        num_parts, num_sections: parts and groups counted apart.

    Attributes:
        part_rows, part_positives: int64 [parts, tasks].
        too_many_days: the column of time has more than `MAX_DAYS` days, so that rates by day were given up.
    """

    def __init__(self, num_tasks: int, num_parts: int, num_sections: int) -> None:
        self.rows = 0
        self.part_rows = np.zeros((num_parts, num_tasks), np.int64)
        self.part_positives = np.zeros((num_parts, num_tasks), np.int64)
        self._section_rows = np.zeros((num_sections, num_tasks), np.int64)
        self._section_positives = np.zeros((num_sections, num_tasks), np.int64)
        self._days: dict[str, np.ndarray] = {}
        self.too_many_days = False

    def add(self, part: int, block: InspectBlock) -> None:
        """Take in a block of a part."""
        labelled, positive = ~np.isnan(block.labels), block.labels == 1
        self.rows += block.num_rows
        self.part_rows[part] += labelled.sum(axis=0)
        self.part_positives[part] += positive.sum(axis=0)
        for section in np.unique(block.sections):
            rows = block.sections == section
            self._section_rows[section] += labelled[rows].sum(axis=0)
            self._section_positives[section] += positive[rows].sum(axis=0)
        if block.days is not None and not self.too_many_days:
            self._add_days(block.days, labelled, positive)

    def has_days(self) -> bool:
        """Whether rates are by day."""
        return bool(self._days) and not self.too_many_days

    def stats(self, names: Sequence[str], section_names: Sequence[str]) -> tuple[LabelStats, ...]:
        """One `LabelStats` a label.

        Args:
            names: of the labels.
            section_names: of the groups.
        """
        if self.has_days():
            known = in_order([day for day in self._days if day != _UNKNOWN_DAY])
            groups = [*known, *([_UNKNOWN_DAY] if _UNKNOWN_DAY in self._days else [])]
            rows = np.stack([self._days[day][0] for day in groups])
            positives = np.stack([self._days[day][1] for day in groups])
        else:
            groups = list(section_names)
            rows, positives = self._section_rows, self._section_positives
        return tuple(
            LabelStats(
                name=name,
                rows=int(self.part_rows[:, task].sum()),
                rate=_rate(int(self.part_positives[:, task].sum()), int(self.part_rows[:, task].sum())),
                by_section=tuple(
                    LabelRate(name=group, rows=int(num), rate=_rate(int(ones), int(num)))
                    for group, num, ones in zip(groups, rows[:, task], positives[:, task], strict=True)
                ),
            )
            for task, name in enumerate(names)
        )

    def _add_days(self, days: pl.Series, labelled: np.ndarray, positive: np.ndarray) -> None:
        days = days.fill_null(_UNKNOWN_DAY)
        found = days.unique().sort()
        if len(found) + len(self._days) > 2 * MAX_DAYS:
            self.too_many_days = True
            return
        place = days.replace_strict(found, pl.Series(np.arange(len(found))), return_dtype=pl.Int64).to_numpy()
        for task in range(labelled.shape[1]):
            rows = np.bincount(place[labelled[:, task]], minlength=len(found))
            positives = np.bincount(place[positive[:, task]], minlength=len(found))
            for number, day in enumerate(found.to_list()):
                tally = self._days.setdefault(day, np.zeros((2, labelled.shape[1]), np.int64))
                tally[:, task] += rows[number], positives[number]
        self.too_many_days = len(self._days) > MAX_DAYS


def _rate(positives: int, rows: int) -> float | None:
    return positives / rows if rows else None
