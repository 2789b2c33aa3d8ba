"""The workloads of the embedding-bag comparison and its two targets."""

from __future__ import annotations

import json
from pathlib import Path

import embedding_bags
import pytest
import turns
from embedding_bags import bag_workload
from measurement import SideResult
from sides import Absence
from workload import DEFAULTS, MLPERF_DCNV2_HOTNESS, Workload

STEP_SECONDS = {
    "tfdlrm-lookup": 0.03,
    "torch-lookup": 0.04,
    "tfdlrm-update": 0.1,
    "fbgemm-update": 0.17,
}


def test_the_default_is_the_papers_profile_workload() -> None:
    assert bag_workload("100") == DEFAULTS["bags"]


def test_every_size_can_be_given() -> None:
    workload = bag_workload("10", tables=3, rows=500, embedding_dim=32, batch_size=64, max_rows=None)
    assert (workload.table_rows, workload.hotness) == ((500,) * 3, (10,) * 3)
    assert (workload.embedding_dim, workload.batch_size, workload.max_rows) == (32, 64, None)


def test_mlperf_has_tables_of_its_own() -> None:
    workload = bag_workload("mlperf-dcnv2", batch_size=64)
    assert (workload.model, workload.hotness, workload.embedding_dim) == ("bags", MLPERF_DCNV2_HOTNESS, 128)
    assert workload.vocabulary_sizes == DEFAULTS["dcnv2"].vocabulary_sizes
    with pytest.raises(ValueError, match="leave --tables and --rows out"):
        bag_workload("mlperf-dcnv2", rows=5)


def test_hotness_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="give the ids a bag, or mlperf-dcnv2"):
        bag_workload("mlperf")


def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, absent: str = "") -> dict:
    def run_side(name: str, workload: Workload, **_: float) -> SideResult | Absence:
        if name == absent:
            return Absence(side=name, reason="not installed (python benchmarks/setup_peers.py torch)")
        return SideResult(
            side=name,
            workload=workload.to_dict(),
            step_seconds=(STEP_SECONDS.get(name, 1.0),),
            num_steps=1,
            loss=0.5,
            peak_bytes=1,
        )

    monkeypatch.setattr(turns, "run_side", run_side)
    numbers = tmp_path / "numbers.json"
    assert embedding_bags.main(["--rounds", "1", "--json", str(numbers)]) == 0
    return json.loads(numbers.read_text())


def test_lookups_and_updates_are_judged_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = run_main(tmp_path, monkeypatch)
    assert [sitting["title"] for sitting in numbers["sittings"]] == ["Lookup", "Lookup, backward and update"]
    assert len({side["side"] for sitting in numbers["sittings"] for side in sitting["sides"]}) == 9
    text = capsys.readouterr().out
    assert "- forward + backward + update over fbgemm >= 1.8×: 1.700×, NOT met" in text
    assert "- forward over torch EmbeddingBag >= 1×: 1.333×, met" in text


def test_an_absent_peer_leaves_its_target_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(tmp_path, monkeypatch, absent="fbgemm-update")
    text = capsys.readouterr().out
    assert "over fbgemm >= 1.8×: not judged (fbgemm-update: not installed (python benchmarks/setup_peers.py" in text
