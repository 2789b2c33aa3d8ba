"""`train` and its commands over a cluster: the numbers of one process, whole checkpoints, a clean end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.distribute.in_process import ROOT, run_script
from tests.training.csv_run import csv_config, write_rows
from tfdlrm.cli.program import main
from tfdlrm.distribute import LocalCluster
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import train

pytestmark = pytest.mark.multiprocess

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads(run_script("tests.distribute.training_run"))


@pytest.mark.parametrize("kind", ["synchronous", "moved"])
def test_synchronous_training_is_that_of_one_process(results: dict[str, Any], kind: str) -> None:
    """`moved` was stopped in the middle of an epoch over 2 x 2 processes and resumed in one."""
    assert results[kind]["interrupted_by"] is None
    for name, values in results["alone"]["history"].items():
        if name not in ("elapsed_seconds", "samples_per_second"):
            assert results[kind]["history"][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    assert results[kind]["test"] == pytest.approx(results["alone"]["test"], rel=1e-4, nan_ok=True)
    assert results["difference"] <= 1e-5
    assert results["moved difference"] <= 1e-5


def test_a_checkpoint_on_demand_is_of_whole_steps(results: dict[str, Any]) -> None:
    assert results["stopped"] == "SIGTERM"
    assert results["stopped at"] == [14, 14, 64, 64]  # the fourth batch of the second epoch


def test_asynchronous_checkpoints_hold_every_step_that_was_handed_out(results: dict[str, Any]) -> None:
    positions = results["all positions"]
    assert len(results["positions"]) >= 2
    assert positions[: len(results["positions"])] == results["positions"]
    for step, of_optimizer, rows, counted in positions:
        assert (step, rows) == (of_optimizer, counted)
    assert positions[-1] == [30, 30, 150, 150]
    assert len(results["asynchronous"]["history"]["loss"]) == 3


def test_a_cluster_of_processes_trains_by_one_command(tmp_path: Path) -> None:
    config = csv_config(write_rows(tmp_path / "rows.csv", 400))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    run = ["cluster", "run", "--workers", "2", "--parameter-servers", "2", "--"]
    flags = ["--model-dir", "model", "--set", "train.parameter_server.synchronous=true"]
    command = [sys.executable, "-m", "tfdlrm", *run, "train", "config.yaml", *flags]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for process in ("worker 0", "worker 1", "ps 0", "ps 1"):
        assert f"[{process}] tfdlrm server: {process} at 127.0.0.1:" in done.stderr
        assert f"[{process}] tfdlrm server: {process} stops: SIGTERM" in done.stderr
    assert "listens at port" not in done.stderr  # of every interface; see test_server.py
    assert "user: 13 rows whole on server" in done.stdout
    assert "servers hold" in done.stdout
    alone = train(config, tmp_path / "alone", verbose=0)
    best = ModelDir(tmp_path / "model").read_best()
    assert best is not None
    assert best["value"] == pytest.approx(alone.best["value"], abs=1e-6)  # type: ignore[index]
    assert ModelDir(tmp_path / "model").load_config().train.strategy == "parameter_server"


def test_a_lost_server_ends_the_training_which_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    config = csv_config(write_rows(tmp_path / "rows.csv", 400))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    local = LocalCluster(1, 2, show=None)
    with local:
        flags = ["--model-dir", "model", "--cluster", str(local.file), "--quiet"]
        command = [sys.executable, "-m", "tfdlrm", "train", "config.yaml", *flags]
        options: dict[str, Any] = {
            "cwd": tmp_path,
            "env": ENVIRONMENT,
            "stderr": subprocess.PIPE,
            "stdout": subprocess.DEVNULL,
            "text": True,
        }
        with subprocess.Popen([*command, "--set", "train.epochs=1000000"], **options) as training:
            folder = ModelDir(tmp_path / "model").checkpoints()
            while not folder.names() and training.poll() is None:
                time.sleep(0.05)
            local.processes["ps 1"].kill()
            _, said = training.communicate()
        assert training.returncode == 2, said[-3000:]
        address = local.cluster.parameter_servers[1]
        (error,) = (line for line in said.splitlines() if line.startswith("tfdlrm: error:"))
        assert error.startswith(f"tfdlrm: error: ps 1 at {address} is gone: "), error
        assert said.rstrip().endswith(error)
        local.processes["ps 1"].wait()
        local.start("ps", 1)
        done = subprocess.run([*command, "--resume", "--set", "train.epochs=1"], check=False, **options)
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["cluster", "run", "--", "evaluate", "runs/first"], "cluster run: 'evaluate' cannot be run over a cluster"),
        (["cluster", "run"], "cluster run: there is no command. Write: cluster run ... -- train"),
        (
            ["cluster", "run", "--workers", "0", "--", "train", "quickstart"],
            "0 workers, 1 servers. Give 1 to 64 of each",
        ),
        (["train", "quickstart", "--cluster", "none.yaml"], "none.yaml: no such cluster file"),
        (
            ["cluster", "run", "--workers", "65", "--", "train", "quickstart"],
            "65 workers, 1 servers. Give 1 to 64 of each",
        ),
        (["cluster", "run", "--", "train", "quickstart", "--cluster=a"], "--cluster behind -- names another cluster"),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--set", "train.strategy=local"],
            "train.strategy='local' trains in one process, and a cluster is given",
        ),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--set", "train.precision=mixed_float16"],
            "precision='mixed_float16' cannot be honoured with strategy='parameter_server'",
        ),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--set", "train.gradient_accumulation_steps=2"],
            "gradient_accumulation_steps=2 cannot be honoured with strategy='parameter_server'",
        ),
        (["train", "quickstart", "--parameter-servers"], "TF_CONFIG is not set. Set it, or give a cluster"),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--deterministic"],
            "deterministic=True cannot be honoured with strategy='parameter_server'",
        ),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--set", "train.parameter_server.max_staleness=0"],
            "ParameterServerConfig: max_staleness=0",
        ),
        (
            ["train", "quickstart", "--cluster", "none.yaml", "--set", "train.parameter_server.max_staleness=1025"],
            "max_staleness=1025 is too large: servers remember the last 1024 steps",
        ),
    ],
)
def test_what_cannot_be_is_named(
    command: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert message in capsys.readouterr().err
