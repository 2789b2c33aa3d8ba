"""Faults at some writes of each command; `python tools/faults.py` has 270, over twenty minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.faults import spread

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "faults.py"


@pytest.mark.multiprocess
def test_nothing_is_lost_and_nothing_is_left_half() -> None:
    options = ["--kills", "5", "--full", "5", "--read-only", "0", "--seed", "17"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "5 kill, 5 full, 0 read-only: 0 lost something or left it half" in done.stdout


def test_calls_are_spread_over_all_of_them() -> None:
    assert spread(100, 4, 0) == [1, 26, 51, 76]
    assert spread(100, 4, 30) == [6, 31, 56, 81]
    assert spread(3, 10, 0) == [1, 2, 3]
