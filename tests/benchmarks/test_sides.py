"""Running a side in a process of its own, and saying why there is no result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import setup_peers
import sides
from measurement import SideResult
from sides import SIDES, Absence, Side, missing_peer, run_side, sides_of
from workload import Workload

WORKLOAD = Workload(batch_size=8, embedding_dim=4, max_rows=100, table_rows=(50, 500), hotness=(1, 3))
PRINTS_ITS_INPUT = """
import argparse, os
from measurement import SideResult, add_timing_arguments
from workload import add_workload_arguments, workload_from_arguments
assert "TF_USE_LEGACY_KERAS" not in os.environ
assert os.environ["COLOUR"] == "blue"
parser = argparse.ArgumentParser()
parser.add_argument("name")
add_workload_arguments(parser)
add_timing_arguments(parser)
arguments = parser.parse_args()
assert arguments.name == "argument"
print(SideResult(side="another name", workload=workload_from_arguments(arguments).to_dict(),
                 step_seconds=(arguments.seconds,), num_steps=1, loss=0.5, peak_bytes=1).to_line())
"""


@pytest.fixture
def make_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Registers a side of this project that runs the given source."""

    def make(source: str) -> str:
        script = tmp_path / "side.py"
        script.write_text(source)
        side = Side(script=str(script), arguments=("argument",), variables=(("COLOUR", "blue"),))
        monkeypatch.setattr(sides, "SIDES", {"stub": side})
        return "stub"

    return make


def test_every_script_of_a_side_exists() -> None:
    for name, side in SIDES.items():
        assert (setup_peers.BENCHMARKS_DIR / side.script).is_file(), name
        assert side.environment is None or side.environment in setup_peers.ENVIRONMENTS, name


def test_sides_are_found_by_the_model_they_run() -> None:
    assert sides_of("dcnv2") == ["tfdlrm-rowwise_adagrad", "fbgemm"]
    assert len(sides_of("dlrm")) == 10
    assert all(name.split("-")[1] in ("lookup", "update") for name in sides_of("bags"))


def test_the_control_runs_without_the_native_kernels() -> None:
    off = [name for name, side in SIDES.items() if dict(side.variables).get("TFDLRM_NATIVE") == "off"]
    assert off == ["tfdlrm-lookup-stock", "tfdlrm-update-stock"]


def test_a_missing_peer_says_how_to_install_it(tmp_path: Path) -> None:
    absence = missing_peer("fbgemm", tmp_path)
    assert absence == Absence(side="fbgemm", reason="not installed (python benchmarks/setup_peers.py torch)")


def test_this_project_is_never_missing(tmp_path: Path) -> None:
    assert missing_peer("tfdlrm-sgd", tmp_path) is None


def test_a_peer_that_is_not_installed_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "is_installed", lambda name, peers_dir: False)
    outcome = run_side("keras-sgd", WORKLOAD, seconds=1, timeout_seconds=1)
    assert isinstance(outcome, Absence)
    assert outcome.reason.startswith("not installed")


def test_a_side_gets_the_workload_and_its_result_comes_back(make_side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    outcome = run_side(make_side(PRINTS_ITS_INPUT), WORKLOAD, seconds=0.5, timeout_seconds=60)
    assert isinstance(outcome, SideResult)
    assert outcome.workload == WORKLOAD.to_dict()
    assert (outcome.side, outcome.step_seconds) == ("stub", (0.5,)), "a side goes by its name in SIDES"
    assert 0 <= outcome.others_share <= 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; sys.exit('no memory left')", "exit code 1\nno memory left"),
        ("print('done')", "the side printed no RESULT line"),
    ],
)
def test_a_side_that_fails_says_why(make_side, source: str, reason: str) -> None:
    outcome = run_side(make_side(source), WORKLOAD, seconds=1, timeout_seconds=60)
    assert outcome == Absence(side="stub", reason=reason)


def test_a_side_that_hangs_is_given_up(make_side) -> None:
    outcome = run_side(make_side("import time; time.sleep(60)"), WORKLOAD, seconds=1, timeout_seconds=0.2)
    assert outcome == Absence(side="stub", reason="no result within 0 s")


def test_an_environment_counts_only_when_complete(tmp_path: Path) -> None:
    assert not setup_peers.is_installed("torch", tmp_path)
    python = setup_peers.python_of("torch", tmp_path)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert not setup_peers.is_installed("torch", tmp_path), "no marker: pip did not finish"
    marker = tmp_path / "torch" / setup_peers.MARKER
    marker.write_text(json.dumps(["torch==1.0"]))
    assert not setup_peers.is_installed("torch", tmp_path), "other versions"
    marker.write_text(json.dumps(list(setup_peers.ENVIRONMENTS["torch"].requirements)))
    assert setup_peers.is_installed("torch", tmp_path)


def test_setup_refuses_an_unknown_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        setup_peers.main(["pytorch"])
    assert "no peer environment 'pytorch'; choose from torch, tfrs, keras-rs" in capsys.readouterr().err
