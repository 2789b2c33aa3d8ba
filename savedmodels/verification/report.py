"""What a verification found: a line a check, and a line for each problem."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from pathlib import Path


class Result(enum.Enum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "FAILED"
    NOT_TRIED = "not tried"  # counts as failed: nothing was shown
    LEFT_OUT = "left out"  # as asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        name: what was checked.
        result: what came of it.
        detail: what was seen, or why it was not tried; one line.
        problems: a line each, naming the file, tensor or signature.
    """

    name: str
    result: Result
    detail: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, problems: list[str], detail: str = "") -> Check:
        """Passed where there are no problems."""
        return cls(
            name=name,
            result=Result.FAILED if problems else Result.PASSED,
            detail=detail,
            problems=tuple(problems),
        )

    @classmethod
    def not_tried(cls, name: str, reason: str) -> Check:
        """Not tried, for a reason."""
        return cls(name=name, result=Result.NOT_TRIED, detail=reason)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All checks of a version.

    Args:
        version_folder: what was checked.
        checks: in the order in which they are told.
    """

    version_folder: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed, or was left out on purpose."""
        return all(check.result in (Result.PASSED, Result.LEFT_OUT) for check in self.checks)

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem, and every check that was not tried, as `<check>: <what>`."""
        return tuple(self._problems())

    def __getitem__(self, name: str) -> Check:
        """The check of a name.

        Raises:
            KeyError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def _problems(self) -> Iterator[str]:
        for check in self.checks:
            if check.result is Result.NOT_TRIED:
                yield f"{check.name}: not tried: {check.detail}"
            for problem in check.problems:
                yield f"{check.name}: {problem}"

    def print(self) -> None:
        """Prints a table of the checks, then a line for each problem, then the verdict."""
        from tfdlrm.cli.tables import print_table

        rows = [(check.name, check.result.value, check.detail) for check in self.checks]
        print_table(str(self.version_folder), ("check", "result", ""), rows, text_columns=(0, 1, 2))
        for problem in self.problems:
            print(f"FAILED {problem}")
        print(f"{self.version_folder}: {'passed' if self.passed else 'FAILED'}")
