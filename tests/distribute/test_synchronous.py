"""Synchronous training on any cluster equals one process: every kind of table, every row optimizer, 50 steps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.distribute.in_process import run_script

# Of the nine, those that differ in kind: nothing is cut, and rows and batches are. All nine take three minutes:
# `python -m tests.distribute.synchronous_run 1x1 1x2 1x3 2x1 2x2 2x3 3x1 3x2 3x3`.
SIZES = ["1x1", "3x3"]

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads(run_script("tests.distribute.synchronous_run", *SIZES))


@pytest.mark.parametrize("size", SIZES)
def test_weights_equal_those_of_one_process(results: dict[str, Any], size: str) -> None:
    found = results[size]
    assert found["names"], "arrays of other names"
    # of rows rounded stochastically, a sum that differs in its last bit may be rounded the other way
    assert found["half"] <= 2
    differences = {name: value for name, value in found["difference"].items() if name != "half/rows"}
    worst = max(differences, key=differences.__getitem__)
    assert differences[worst] <= 1e-5, f"{worst}: {differences[worst]}"
    assert found["history"]["loss"] == pytest.approx(results["history"]["loss"], rel=1e-5)
    assert found["history"]["auc"] == pytest.approx(results["history"]["auc"], abs=1e-3)
    assert found["scores"] <= 1e-5
    assert found["measured"] == pytest.approx(results["measured"], rel=1e-4)
    assert found["counts"] == results["counts"]
    assert found["updates"] == 50


@pytest.mark.parametrize("size", SIZES)
def test_a_checkpoint_is_read_under_another_number_of_servers(results: dict[str, Any], size: str) -> None:
    assert results[size]["restored"], "a checkpoint does not come back bit by bit"


@pytest.mark.parametrize("size", SIZES)
def test_the_plan_says_what_is_cut(results: dict[str, Any], size: str) -> None:
    cut = [reason for reason in results[size]["reasons"] if "cut into" in reason]
    # all but "tiny", which has fewer rows than three servers, and "narrow", which has a clipnorm
    assert len(cut) == {"1": 0, "3": 10}[size[-1]], results[size]["reasons"]


@pytest.mark.parametrize("size", SIZES)
def test_one_traced_function_does_every_part(results: dict[str, Any], size: str) -> None:
    """A cluster of many workers starts as quickly as one of few."""
    assert [name for name in results[size]["traced"] if name.startswith("part")] == ["part"]
