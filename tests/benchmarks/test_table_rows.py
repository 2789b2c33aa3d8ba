"""The report of step time and memory against rows a table."""

from __future__ import annotations

import pytest
from machine import CpuClock
from table_rows import RowsResult, grown_ops, report, touches_all_rows


def result(rows: int, **fields: object) -> RowsResult:
    values: dict = {
        "step_seconds": 0.01,
        "best_seconds": 0.009,
        "allocated_bytes": 2**20,
        "largest_bytes": 2**20,
        "largest_by": "dense/MatMul [2048,128]",
        "peak_bytes": 2**21,
        "resident_growth_bytes": 0,
        "resident_peak_bytes": 2**22,
        "op_seconds": {"MatMul": 0.001},
    }
    return RowsResult(rows=rows, **{**values, **fields})


def test_the_ratio_is_of_medians_over_rounds() -> None:
    rounds = [
        [result(10_000, step_seconds=small), result(10_000_000, step_seconds=large)]
        for small, large in ((0.010, 0.011), (0.020, 0.012), (0.011, 0.055))
    ]
    text = report(rounds)
    assert "| 10,000 | 11.00 | 9.00 |" in text
    assert "| 10,000,000 | 12.00 | 9.00 |" in text
    assert f"step time with 10,000,000 rows over that with 10,000 <= 1.15×: {12 / 11:.3f}×, met" in text


def test_a_step_that_grows_with_the_tables_does_not_meet_the_criterion() -> None:
    text = report([[result(10_000), result(10_000_000, step_seconds=0.0116)]])
    assert "1.160×, NOT met" in text


def test_no_time_ratio_of_a_disturbed_run() -> None:
    text = report([[result(10_000), result(10_000_000, others_share=0.5)]])
    assert "not judged (disturbed: other processes took up to 50% of the CPUs" in text


def test_ops_are_listed_by_what_they_grew() -> None:
    small = result(10, op_seconds={"MatMul": 0.002, "Gone": 0.001})
    large = result(100, op_seconds={"MatMul": 0.003, "ReadVariableOp": 0.5})
    assert grown_ops(small, large) == [
        ("ReadVariableOp", 0.5),
        ("MatMul", pytest.approx(0.001)),
        ("Gone", -0.001),
    ]


@pytest.mark.parametrize(("largest_bytes", "touches"), [(4 * 10**6, True), (4 * 10**6 - 1, False)])
def test_one_float_a_row_counts_as_touching_all_rows(largest_bytes: int, touches: bool) -> None:
    assert touches_all_rows(result(10**6, largest_bytes=largest_bytes)) is touches


def test_the_share_of_others_leaves_out_this_process_and_idling() -> None:
    before = CpuClock(machine_seconds=100.0, own_seconds=10.0, wall_seconds=1000.0)
    after = CpuClock(machine_seconds=115.0, own_seconds=20.0, wall_seconds=1010.0)
    assert after.others_share_since(before, cores=2) == (15 - 10) / 20
    assert before.others_share_since(before, cores=2) == 0.0
    alone = CpuClock(machine_seconds=109.0, own_seconds=20.0, wall_seconds=1010.0)
    assert alone.others_share_since(before, cores=2) == 0.0
