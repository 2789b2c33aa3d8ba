"""The flags of the comparison and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import train_step
import turns
from measurement import SideResult
from sides import Absence, sides_of
from workload import DEFAULTS, Workload

STEP_SECONDS = {"tfdlrm-sgd": 0.01, "torch-sgd": 0.02, "keras-sgd": 0.5}


def result(name: str, workload: Workload) -> SideResult:
    return SideResult(
        side=name,
        workload=workload.to_dict(),
        step_seconds=(STEP_SECONDS.get(name, 0.1),),
        num_steps=1,
        loss=0.5,
        peak_bytes=2**20,
        versions={name: "1.0"},
    )


def run_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, broken: str = "", arguments: tuple[str, ...] = ()
) -> int:
    def run_side(name: str, workload: Workload, *, seconds: float, timeout_seconds: float) -> SideResult | Absence:
        return Absence(side=name, reason="exit code 1\nboom") if name == broken else result(name, workload)

    monkeypatch.setattr(turns, "run_side", run_side)
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
        assert "### Batch 128, D = 16, 26 tables" in text
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


def test_a_model_has_sides_and_sizes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Workload]] = []

    def run_side(name: str, workload: Workload, **_: float) -> SideResult:
        seen.append((name, workload))
        return result(name, workload)

    monkeypatch.setattr(turns, "run_side", run_side)
    assert train_step.main(["--model", "dcnv2", "--rounds", "1", "--json", str(tmp_path / "numbers.json")]) == 0
    assert seen == [(name, DEFAULTS["dcnv2"]) for name in sides_of("dcnv2")]


def test_a_side_of_another_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_step.main(["--model", "dcnv2", "--sides", "tfrs"])
    assert "no side 'tfrs' for dcnv2; choose from tfdlrm-rowwise_adagrad, fbgemm" in capsys.readouterr().err


def test_no_rounds_are_refused() -> None:
    with pytest.raises(SystemExit, match="--rounds must be at least 1"):
        train_step.main(["--rounds", "0"])
