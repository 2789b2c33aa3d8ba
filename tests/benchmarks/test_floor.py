"""The floor and the distance to it."""

from __future__ import annotations

from comparison import DISTURBED_SHARE, SideSummary, Sitting
from floor import DEFAULT_SIDES, PRODUCTS, ROWS, floor_lines
from sides import SIDES
from step_work import StepWork
from workload import Workload

WORK = StepWork(flops=4e9, read_bytes=3e6, update_bytes=5e6)


def summary(side: str, seconds: float, *, others_share: float = 0.0) -> SideSummary:
    return SideSummary(
        side=side,
        batch_size=2048,
        round_seconds=(seconds,),
        best_seconds=seconds / 2,
        peak_bytes=1,
        versions={},
        others_share=others_share,
    )


def lines(*summaries: SideSummary) -> str:
    return "\n".join(floor_lines(WORK, Sitting(workload=Workload().to_dict(), summaries=summaries, absences=())))


def test_all_parts_are_sides() -> None:
    assert {*PRODUCTS, *ROWS, *DEFAULT_SIDES} <= SIDES.keys()


def test_the_floor_is_the_sum_of_the_faster_parts() -> None:
    text = lines(
        summary(PRODUCTS[0], 0.040),
        summary(PRODUCTS[1], 0.020),
        summary(ROWS[0], 0.005),
        summary(ROWS[1], 0.009),
        summary("tfdlrm-rowwise_adagrad", 0.050),
    )
    assert f"({PRODUCTS[1]}) | 4.00 GFLOP | 200 GFLOP/s | 20.00 | 10.00 |" in text
    assert f"({ROWS[0]}) | 8.0 MB | 1.60 GB/s | 5.00 | 2.50 |" in text
    assert "| **floor** | | | **25.00** | **12.50** |" in text
    assert "tfdlrm-rowwise_adagrad: 50.00 ms a step, 2.00× the floor by medians, 2.00× by the best" in text


def test_a_disturbed_part_spoils_the_distance() -> None:
    parts = (summary(PRODUCTS[0], 0.02, others_share=2 * DISTURBED_SHARE), summary(ROWS[0], 0.005))
    assert f"not judged ({PRODUCTS[0]} disturbed)" in lines(*parts, summary("fbgemm", 0.05))


def test_no_floor_without_its_parts() -> None:
    assert "not known" in lines(summary(PRODUCTS[0], 0.02), summary("fbgemm", 0.05))
