"""Label rates: of everything, by part, by group of the file and by day."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdlrm.data.inspect.blocks import InspectBlock
from tfdlrm.data.inspect.days import in_order
from tfdlrm.data.inspect.report import LabelRate, LabelStats
from tfdlrm.data.polars_extra import pl

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
