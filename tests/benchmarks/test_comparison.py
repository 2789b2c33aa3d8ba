"""Medians, ratios and what the report says."""

from __future__ import annotations

import statistics

import pytest
from comparison import DISTURBED_SHARE, SideSummary, Sitting, summarize_side
from hypothesis import given
from hypothesis import strategies as st
from measurement import SideResult
from sides import SIDES, Absence
from targets import Target

WORKLOAD = {
    "batch_size": 100,
    "embedding_dim": 16,
    "max_rows": None,
    "tables": 26,
    "total_rows": 33_762_577,
    "ids_per_row": 26,
}
seconds = st.floats(1e-4, 10)


def round_of(side: str, step_seconds: tuple[float, ...], **fields: object) -> SideResult:
    values: dict = {"workload": WORKLOAD, "num_steps": 5, "loss": 0.5, "peak_bytes": 2**20, "versions": {}}
    return SideResult(side=side, step_seconds=step_seconds, **{**values, **fields})


def summary(side: str, *round_seconds: float, others_share: float = 0.0) -> SideSummary:
    return SideSummary(
        side=side,
        batch_size=100,
        round_seconds=round_seconds,
        best_seconds=min(round_seconds),
        peak_bytes=2**20,
        versions={},
        others_share=others_share,
    )


def test_a_side_is_the_median_of_its_rounds_medians() -> None:
    rounds = [
        round_of("fbgemm", (9.0, 1.0, 2.0)),
        round_of("fbgemm", (4.0,)),
        round_of("fbgemm", (0.5, 3.0, 30.0)),
    ]
    joined = summarize_side(rounds)
    assert joined.round_seconds == (2.0, 4.0, 3.0)
    assert joined.median_seconds == 3.0
    assert joined.median_samples_per_second == 100 / 3
    assert joined.best_samples_per_second == 100 / 0.5


def test_the_largest_memory_and_the_worst_disturbance_are_kept() -> None:
    rounds = [
        round_of("tfrs", (1.0,), peak_bytes=5, others_share=0.2),
        round_of("tfrs", (1.0,), peak_bytes=7),
    ]
    joined = summarize_side(rounds)
    assert (joined.peak_bytes, joined.others_share) == (7, 0.2)


@pytest.mark.parametrize("change", [{"side": "tfrs"}, {"workload": {**WORKLOAD, "batch_size": 1}}])
def test_rounds_of_different_work_do_not_mix(change: dict) -> None:
    other = {"side": "fbgemm", "workload": WORKLOAD, **change}
    mixed = SideResult(step_seconds=(1.0,), num_steps=1, loss=0.0, peak_bytes=1, **other)
    with pytest.raises(ValueError, match="is not a round of"):
        summarize_side([round_of("fbgemm", (1.0,)), mixed])


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="no results"):
        summarize_side([])


@given(st.lists(seconds, min_size=1, max_size=6), st.lists(seconds, min_size=1, max_size=6))
def test_a_ratio_is_the_ratio_of_medians(ours: list[float], theirs: list[float]) -> None:
    sitting = Sitting(
        workload=WORKLOAD,
        summaries=(summary("tfdlrm-sgd", *ours), summary("torch-sgd", *theirs)),
        absences=(),
    )
    expected = (100 / statistics.median(ours)) / (100 / statistics.median(theirs))
    assert sitting.ratios()["torch-sgd"]["tfdlrm-sgd"] == pytest.approx(expected, rel=1e-12)


def test_the_report_has_medians_ratios_and_the_matching_pair_in_bold() -> None:
    sides = (
        summary("tfdlrm-sgd", 0.002),
        summary("tfdlrm-adagrad", 0.004),
        summary("torch-sgd", 0.003, 0.005, 0.004),
    )
    text = Sitting(workload=WORKLOAD, summaries=sides, absences=()).to_markdown()
    assert "### Batch 100, D = 16, 26 tables, 33,762,577 rows\n" in text
    assert "| torch-sgd | 25,000 | 33,333 | 4.00 | 3.00 5.00 4.00 | 1 | 0% |" in text
    assert "| peer | tfdlrm-sgd | tfdlrm-adagrad |" in text
    assert "| torch-sgd | **2.00×** | 1.00× |" in text
    assert "Disturbed" not in text


def test_a_missing_peer_is_named() -> None:
    absence = Absence(side="fbgemm", reason="not installed (python benchmarks/setup_peers.py torch)")
    sitting = Sitting(workload=WORKLOAD, summaries=(summary("tfdlrm-sgd", 0.002),), absences=(absence,))
    assert "| fbgemm | not installed (python benchmarks/setup_peers.py torch) |" in sitting.to_markdown()
    assert sitting.to_dict()["absent"] == {"fbgemm": absence.reason}
    assert sitting.ratios() == {}


def test_a_disturbed_run_is_marked() -> None:
    disturbed = summary("torch-sgd", 0.003, others_share=2 * DISTURBED_SHARE)
    sides = (summary("tfdlrm-sgd", 0.001), disturbed, summary("keras-sgd", 0.004))
    text = Sitting(workload=WORKLOAD, summaries=sides, absences=()).to_markdown()
    assert "**Disturbed**" in text
    assert "while torch-sgd ran" in text
    assert "| torch-sgd | disturbed |" in text, "a ratio of a disturbed run is not printed"
    assert "| keras-sgd | **4.00×** |" in text


def test_the_heading_says_what_is_timed_how_many_ids_and_the_cap() -> None:
    workload = {**WORKLOAD, "ids_per_row": 214, "max_rows": 300_000}
    text = Sitting(workload=workload, summaries=(), absences=(), title="Lookup").to_markdown()
    assert text.startswith(
        "### Lookup: batch 100, D = 16, 26 tables, 33,762,577 rows (at most 300,000 a table), 214 ids"
    )


def test_what_no_peer_can_match_is_in_no_ratio() -> None:
    sides = (summary("tfdlrm-sgd", 0.002), summary("floor-rows-numpy", 0.001), summary("torch-sgd", 0.004))
    sitting = Sitting(workload=WORKLOAD, summaries=sides, absences=())
    assert sitting.ratios() == {"torch-sgd": {"tfdlrm-sgd": 2.0}}
    assert sitting.ratio("tfdlrm-sgd", "floor-rows-numpy") == 0.5


def target_of(*summaries: SideSummary, absences: tuple[Absence, ...] = ()) -> Target:
    sitting = Sitting(workload=WORKLOAD, summaries=summaries, absences=absences)
    return sitting.target("over torch", "tfdlrm-sgd", "torch-sgd", at_least=1.5)


def test_a_target_is_the_ratio_of_medians() -> None:
    assert target_of(summary("tfdlrm-sgd", 0.002), summary("torch-sgd", 0.003)).is_met is True
    assert target_of(summary("tfdlrm-sgd", 0.002), summary("torch-sgd", 0.0029)).is_met is False


def test_a_target_is_not_judged_where_a_side_is_absent_or_disturbed() -> None:
    ours = summary("tfdlrm-sgd", 0.001)
    absent = target_of(ours, absences=(Absence(side="torch-sgd", reason="exit code 1\nboom"),))
    assert absent.is_met is None
    assert "torch-sgd: exit code 1)" in str(absent)
    disturbed = target_of(ours, summary("torch-sgd", 0.004, others_share=2 * DISTURBED_SHARE))
    assert disturbed.is_met is None
    assert "torch-sgd disturbed" in str(disturbed)


def test_another_sides_trouble_does_not_keep_a_target_from_being_judged() -> None:
    others = (summary("keras-sgd", 0.1, others_share=0.9), summary("tfdlrm-sgd", 0.001), summary("torch-sgd", 0.004))
    assert target_of(*others, absences=(Absence(side="tfrs", reason="not installed"),)).is_met is True


def test_every_peer_names_a_side_of_this_project_that_does_the_same_work() -> None:
    for name, side in SIDES.items():
        if side.environment is None:
            assert side.same_work_as is None, name
        else:
            assert side.same_work_as is not None
            assert SIDES[side.same_work_as].environment is None, name
