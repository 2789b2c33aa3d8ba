"""Numbered folders of a model's versions, as TensorFlow Serving wants them. Each appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfdlrm.files import appear, partial_folder

MAX_VERSION = 2**63 - 1  # TensorFlow Serving's: an int64
_NUMBER = re.compile(r"[0-9]{1,4000}")  # of more digits Python makes no number


@contextmanager
def new_version(path: str | os.PathLike[str], version: int | None) -> Iterator[tuple[Path, int]]:
    """An empty folder to write a version into, and its number; it gets its name when everything is written.

    Raises:
        ValueError, FileExistsError: the number is below 1 or beyond int64, or taken.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    number = _number(path, version)
    with partial_folder(path / str(number)) as partial:  # hidden: TensorFlow Serving looks at numbers only
        yield partial, number
        appear(partial, path / str(number))


def number_of(name: str) -> int | None:
    """The version that a folder's name says; None where it is no int64.

    Example:
        >>> number_of("007"), number_of(".7.partial")
        (7, None)
    """
    if not _NUMBER.fullmatch(name) or int(name) > MAX_VERSION:
        return None
    return int(name)


def numbers(path: Path) -> list[int]:
    """Versions that are there."""
    return [number for entry in path.iterdir() if (number := number_of(entry.name)) is not None]


def _number(path: Path, version: int | None) -> int:
    present = numbers(path)
    if version is None:
        version = max(present, default=0) + 1
    if not 1 <= version <= MAX_VERSION:
        raise ValueError(f"version={version} is not possible. Give a number from 1 to {MAX_VERSION}.")
    if version in present:
        raise FileExistsError(
            f"{path / str(version)} is there already. Give another version, or none for the next one."
        )
    return version
