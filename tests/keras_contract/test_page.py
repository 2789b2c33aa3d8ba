"""Every row of docs/keras.md names the tests that hold it to its word."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "keras.md").read_text("utf-8").splitlines() if "::" in line]


@pytest.mark.parametrize("row", ROWS)
def test_its_tests_are_there(row: str) -> None:
    what, how, tests = (cell.strip() for cell in re.split(r"(?<!\w)\|(?!\w)", row.strip("| ")))
    assert what
    assert how
    for name in tests.split(", "):
        file, _, function = name.strip("`").partition("::")
        folders = ("", "tests/keras_contract", "tests/layers")
        paths = [ROOT / folder / file for folder in folders if (ROOT / folder / file).is_file()]
        assert paths, f"{file} is in none of {folders}"
        assert f"\ndef {function}(" in paths[0].read_text("utf-8"), name


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) >= 40
