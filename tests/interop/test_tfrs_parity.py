"""TFRS's DotInteraction, Cross, MLP and Ranking give the same numbers as ours on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RELATIVE = 1e-5

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Both libraries' numbers, from a process whose `tf.keras` is Keras 2."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.interop.tfrs_comparison"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


def _checks(report: dict[str, Any], part: str) -> dict[str, Any]:
    return {name: sides for name, sides in report["checks"].items() if name.startswith(part)}


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("dot interaction", 4),  # with and without itself, op by op and compiled
        ("cross", 1),
        ("MLP", 3),  # one a final activation
        ("Ranking", 16),  # 10 dense weights, 3 tables, loss, probabilities before and after
    ],
)
def test_the_numbers_are_the_same(report: dict[str, Any], part: str, count: int) -> None:
    checks = _checks(report, part)
    assert len(checks) == count
    for name, (ours, theirs) in checks.items():
        assert len(ours) == len(theirs)
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            scale = np.abs(other).max()
            assert scale > 0
            np.testing.assert_allclose(
                mine, other, rtol=RELATIVE, atol=RELATIVE * scale, err_msg=f"{name}, array {index}"
            )


def test_training_moved_the_numbers(report: dict[str, Any]) -> None:
    before, after = (
        np.array(report["checks"][name][0][0])
        for name in ("Ranking, probabilities", "Ranking, probabilities after training")
    )
    assert np.abs(after - before).max() > 0.01


def test_both_keras_ran_in_one_process(report: dict[str, Any]) -> None:
    assert report["keras"].startswith("3.")
    assert report["tf_keras"].startswith("2.")
