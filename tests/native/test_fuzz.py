"""The fuzz driver for some rounds a mode; `python tools/fuzz.py --of files --seconds 600` is a long run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools.fuzz import ROUND_FILE, run_apart

DRIVER = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("rounds", "sanitizer"),
    [
        ({"calls": 60}, None),
        ({"calls": 40}, "thread"),
        ({"calls": 40, "files": 240, "requests": 1600}, "address"),  # a start under it takes longer than many rounds
    ],
)
def test_random_input_finds_nothing(rounds: dict[str, int], sanitizer: str | None) -> None:
    options = [] if sanitizer is None else ["--sanitize", sanitizer]
    given = ["--of", *rounds, "--rounds", *map(str, rounds.values()), "--seed", "1000000"]
    result = subprocess.run(
        [sys.executable, str(DRIVER), *given, *options],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    found = re.findall(r"(\w+): (\d+) rounds, (\d+) of them refused", result.stdout)
    assert {kind: int(done) for kind, done, _ in found} == rounds
    for kind, _, refused in found:
        assert rounds[kind] // 4 <= int(refused) < rounds[kind]


def test_a_round_that_ends_the_process_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    rounds = f"import os; open(os.environ['{ROUND_FILE}'], 'w').write('round 7\\nround'); os.abort()"
    assert run_apart([sys.executable, "-c", rounds], {}) == -signal.SIGABRT
    assert "ended with SIGABRT in, or after, round 7\n" in capfd.readouterr().out
