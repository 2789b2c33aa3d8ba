"""The fuzz driver for some rounds a mode; `python tools/fuzz_native.py --seconds 600` is the long run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[2] / "tools" / "fuzz_native.py"


@pytest.mark.multiprocess
@pytest.mark.parametrize(("sanitizer", "rounds"), [(None, 120), ("address", 40), ("thread", 40)])
def test_random_input_finds_nothing(sanitizer: str | None, rounds: int) -> None:
    options = [] if sanitizer is None else ["--sanitize", sanitizer]
    result = subprocess.run(
        [sys.executable, str(DRIVER), "--rounds", str(rounds), "--seed", "1000000", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    done, refused = map(int, re.search(r"(\d+) rounds, (\d+) of them refused", result.stdout).groups())  # type: ignore[union-attr]
    assert done == rounds
    assert refused >= rounds // 3
