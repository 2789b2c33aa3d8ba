"""A process ends though a pipeline still has rows to read: `tf.data`'s threads must not wait for the interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.multiprocess
def test_a_process_ends_in_the_middle_of_an_epoch() -> None:
    code = (
        "from tfdlrm.config import SyntheticConfig\n"
        "from tfdlrm.data import ResumableInput, synthetic_dataset\n"
        "rows = synthetic_dataset(SyntheticConfig(num_rows=2_000_000, vocabulary_sizes=(1000,) * 8))\n"
        "kept = [iter(rows.batches(64, shuffle=True)), iter(ResumableInput(rows, 64).dataset())]\n"
        "for iterator in kept:\n"
        "    next(iterator)\n"  # the next piece, a quarter of a million rows, is now being made
        "print('end')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.stdout == "end\n"
    assert run.returncode == 0, run.stderr
