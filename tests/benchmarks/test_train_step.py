"""The sitting: the order of runs, what a missing or broken side does, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import train_step
from comparison import DISTURBED_SHARE
from measurement import SideResult
from sides import Absence
from train_step import run_sitting, run_undisturbed
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


def run_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, broken: str = "", arguments: tuple[str, ...] = ()
) -> int:
    def run_side(name: str, workload: Workload, *, seconds: float, timeout_seconds: float) -> SideResult | Absence:
        return Absence(side=name, reason="exit code 1\nboom") if name == broken else result(name, workload)

    monkeypatch.setattr(train_step, "run_side", run_side)
    return train_step.main(
        [
            "--sides",
            *STEP_SECONDS,
            "--batch-sizes",
            "128",
            "2048",
            "--json",
            str(tmp_path / "numbers.json"),
            *arguments,
        ]
    )


def test_main_prints_and_writes_every_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "RESULTS.md"
    record.write_text("# Results\n")
    assert run_main(tmp_path, monkeypatch, arguments=("--record", str(record), "--rounds", "2")) == 0
    printed = capsys.readouterr().out
    for text in (printed, record.read_text()):
        assert "### Batch 128, D = 16" in text
        assert "### Batch 2048, D = 16" in text
        assert "| keras-sgd | **50.00×** |" in text
        assert "torch-sgd 1.0" in text
    assert record.read_text().startswith("# Results\n")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert [sitting["workload"]["batch_size"] for sitting in numbers["sittings"]] == [128, 2048]
    assert numbers["sittings"][0]["sides"][0]["round_seconds"] == [0.01, 0.01]
    assert numbers["machine"]["cores"] >= 1


def test_a_broken_peer_is_named_and_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(tmp_path, monkeypatch, broken="torch-sgd") == 0
    assert "| torch-sgd | exit code 1 |" in capsys.readouterr().out


def test_this_project_failing_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(tmp_path, monkeypatch, broken="tfdlrm-sgd") == 1
    assert "failed: tfdlrm-sgd" in capsys.readouterr().out
