"""The sitting: the order of runs, what a missing or broken side does, and what is written."""

from __future__ import annotations

from pathlib import Path

from comparison import DISTURBED_SHARE
from machine import Machine
from measurement import SideResult
from sides import Absence
from targets import Target
from turns import append_record, heading, report, run_sitting, run_undisturbed
from workload import Workload

WORKLOAD = Workload(batch_size=100)
STEP_SECONDS = {"tfdlrm-sgd": 0.01, "torch-sgd": 0.02, "keras-sgd": 0.5}


def result(name: str, workload: Workload, *, others_share: float = 0.0) -> SideResult:
    return SideResult(
        side=name,
        workload=workload.to_dict(),
        step_seconds=(STEP_SECONDS[name],),
        num_steps=1,
        loss=0.5,
        peak_bytes=2**20,
        versions={name: "1.0"},
        others_share=others_share,
    )


def test_sides_run_in_turn() -> None:
    order: list[str] = []

    def run(name: str, workload: Workload) -> SideResult:
        order.append(name)
        return result(name, workload)

    sitting = run_sitting(WORKLOAD, list(STEP_SECONDS), 3, run)
    assert order == list(STEP_SECONDS) * 3
    assert [len(summary.round_seconds) for summary in sitting.summaries] == [3, 3, 3]
    assert sitting.ratios()["torch-sgd"]["tfdlrm-sgd"] == 2.0


def test_a_missing_peer_is_asked_once_and_reported() -> None:
    asked: list[str] = []

    def run(name: str, workload: Workload) -> SideResult | Absence:
        asked.append(name)
        return Absence(side=name, reason="not installed") if name == "keras-sgd" else result(name, workload)

    sitting = run_sitting(WORKLOAD, list(STEP_SECONDS), 2, run)
    assert asked.count("keras-sgd") == 1
    assert sitting.absences == (Absence(side="keras-sgd", reason="not installed"),)
    assert [summary.side for summary in sitting.summaries] == ["tfdlrm-sgd", "torch-sgd"]


def test_a_side_that_fails_in_a_later_round_has_no_result() -> None:
    calls = 0

    def run(name: str, workload: Workload) -> SideResult | Absence:
        nonlocal calls
        calls += 1
        return Absence(side=name, reason="exit code -9") if calls == 2 else result(name, workload)

    sitting = run_sitting(WORKLOAD, ["torch-sgd"], 2, run)
    assert sitting.summaries == ()
    assert sitting.absences[0].reason == "exit code -9"


def test_a_disturbed_run_is_repeated_and_the_least_disturbed_kept() -> None:
    shares = iter([0.5, 0.2, 0.3])
    kept = run_undisturbed(lambda: result("torch-sgd", WORKLOAD, others_share=next(shares)), retries=2, wait_seconds=0)
    assert isinstance(kept, SideResult)
    assert kept.others_share == 0.2


def test_an_undisturbed_run_is_not_repeated() -> None:
    shares = iter([0.9, DISTURBED_SHARE])
    kept = run_undisturbed(lambda: result("torch-sgd", WORKLOAD, others_share=next(shares)), retries=5, wait_seconds=0)
    assert isinstance(kept, SideResult)
    assert kept.others_share == DISTURBED_SHARE


MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=24.0, system="Linux", python="3.11", load=0.0)


def test_a_report_names_machine_and_versions() -> None:
    text = "\n".join(heading("Embedding bags", MACHINE, {"torch": "2", "fbgemm": "1"}))
    assert text.startswith("## Embedding bags, 20")
    assert "a CPU, 2 cores" in text
    assert "Versions: fbgemm 1, torch 2." in text


def test_targets_and_notes_follow_the_tables() -> None:
    sitting = run_sitting(WORKLOAD, ["tfdlrm-sgd"], 1, result, title="Lookup")
    targets = [Target(name="over fbgemm", value=None, at_least=1.8)]
    text = report("Bags", MACHINE, [sitting], rounds=1, seconds=2.0, targets=targets, notes=["", "the end"])
    assert "### Lookup: batch 100" in text
    assert text.endswith("Targets:\n\n- over fbgemm >= 1.8×: not judged (no result)\n\nthe end\n")


def test_a_record_is_appended_where_it_is_asked_for(tmp_path: Path) -> None:
    record = tmp_path / "RESULTS.md"
    record.write_text("# Results\n")
    append_record(record, "first\n")
    append_record(record, "second\n")
    append_record(None, "nowhere\n")
    assert record.read_text() == "# Results\n\nfirst\n\nsecond\n"
