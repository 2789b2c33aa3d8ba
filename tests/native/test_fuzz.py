"""The fuzz driver for some rounds a mode; `python tools/fuzz.py --of files --seconds 600` is a long run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("kind", "sanitizer", "rounds"),
    [
        ("calls", None, 120),
        ("calls", "address", 40),
        ("calls", "thread", 40),
        ("files", "address", 240),
        ("requests", "address", 1600),
    ],
)
def test_random_input_finds_nothing(kind: str, sanitizer: str | None, rounds: int) -> None:
    options = [] if sanitizer is None else ["--sanitize", sanitizer]
    result = subprocess.run(
        [sys.executable, str(DRIVER), "--of", kind, "--rounds", str(rounds), "--seed", "1000000", *options],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    done, refused = map(int, re.search(r"(\d+) rounds, (\d+) of them refused", result.stdout).groups())  # type: ignore[union-attr]
    assert done == rounds
    assert rounds // 4 <= refused < rounds
