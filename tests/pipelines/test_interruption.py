"""Killed runs and two at once: what was done is kept, nothing is half there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PipelineConfig
from pipelines.lineage import Store
from pipelines.pipeline import create_pipeline
from pipelines.pusher import Executor
from pipelines.run_local import LOCK_FILE, LOGS, run_local
from pipelines.tfx_extra import tfx
from tests.pipelines.pipeline_run import Run, pipeline_run
from tfdlrm.config import DataConfig
from tfdlrm.files import try_lock
from tfdlrm.training.run import train
from tfdlrm.training.run_evaluation import evaluate_run

POLL_SECONDS = 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def killed_at(config: PipelineConfig, folder: Path, sign: str) -> None:
    """Runs the pipeline in a process of its own, which is killed when a file below the root appears."""
    file = folder / "config.yaml"
    file.write_text(config.to_yaml())
    root = Path(config.root)
    before = set(root.glob(sign))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tfdlrm", "pipeline", "run", str(file)], stdout=log, stderr=subprocess.STDOUT
        )
        while set(root.glob(sign)) == before:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(POLL_SECONDS)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


IN_TRAINER, BEFORE_VERIFIER = "Trainer/model_run/*/config.yaml", f"{LOGS}/*/*-Verifier.log"


@pytest.mark.parametrize(("sign", "epochs"), [(IN_TRAINER, 3), (BEFORE_VERIFIER, 4)])
def test_a_killed_run_is_completed_by_the_next(run, tmp_path, sign, epochs) -> None:
    """With the model that training gives where nothing is killed."""
    config = replace(run.config, push_to=str(tmp_path / "serving"), train=replace(run.config.train, epochs=epochs))
    killed_at(config, tmp_path, sign)
    killed = run.store.runs()[-1]
    if sign == IN_TRAINER:
        assert killed.state == "Trainer unfinished"
    assert killed.execution("Pusher") is None
    assert not (tmp_path / "serving").exists()
    result = run_local(create_pipeline(config))
    assert result.pushed is not None
    states = {each.component: each.state for each in result.run.executions}
    assert states["Transform"] == "CACHED"
    assert states["Trainer"] == ("COMPLETE" if sign == IN_TRAINER else "CACHED")
    assert [path.name for path in (tmp_path / "serving").iterdir()] == [result.pushed.name]
    trained = result.run.execution("Trainer")
    assert trained is not None
    model_dir = Path(trained.outputs["model_run"][0].uri)
    data = DataConfig(format="prepared", path=str(model_dir / "data"))
    undisturbed = train(replace(config.experiment, data=data), tmp_path / "undisturbed", verbose=0)
    assert undisturbed.best is not None
    assert undisturbed.best["value"] == evaluate_run(model_dir, part="validation").metrics["auc"]


def test_two_runs_at_once_are_refused(run) -> None:
    with (
        try_lock(run.root / LOCK_FILE),
        pytest.raises(RuntimeError, match="another process runs a pipeline there"),
    ):
        run_local(create_pipeline(run.config))


def test_a_version_that_was_removed_is_pushed_again(run, tmp_path) -> None:
    config = replace(run.config, push_to=str(tmp_path / "serving"))
    first = run_local(create_pipeline(config))
    assert first.pushed is not None
    shutil.rmtree(first.pushed)
    again = run_local(create_pipeline(config))
    assert again.pushed is not None
    assert (again.pushed / "saved_model.pb").is_file()
    pusher = again.run.execution("Pusher")
    assert pusher is not None
    assert pusher.state == "COMPLETE"


def test_a_damaged_store_is_named(run, tmp_path) -> None:
    (tmp_path / "metadata.sqlite").write_text("garbage")
    config = replace(run.config, root=str(tmp_path))
    with pytest.raises(ValueError, match=r"metadata\.sqlite: damaged, or no metadata store\. Move it away"):
        run_local(create_pipeline(config))
    with pytest.raises(ValueError, match="Move it away"):
        Store(config.store)


def push(model: Path, folder: Path, artifact: Path) -> Any:
    """By the executor of Pusher, without blessings: they are asked for elsewhere."""
    source, pushed = tfx.types.standard_artifacts.Model(), tfx.types.standard_artifacts.PushedModel()
    source.uri, pushed.uri = str(model), str(artifact)
    destination = f'{{"filesystem": {{"base_directory": "{folder}"}}}}'
    Executor().Do({"model": [source]}, {"pushed_model": [pushed]}, {"push_destination": destination})
    return pushed


def test_a_push_that_breaks_off_leaves_no_version(run, tmp_path, monkeypatch) -> None:
    model = run.export.parent

    def broken(source: str, target: Path, **options: object) -> None:
        (target / "saved_model.pb").touch()
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copytree", broken)
    with pytest.raises(OSError, match="No space left"):
        push(model, tmp_path / "serving", tmp_path / "artifact")
    assert list((tmp_path / "serving").iterdir()) == []


def test_versions_go_up_even_where_the_clock_does_not(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    versions = [
        push(run.export.parent, tmp_path / "serving", tmp_path / "artifact").get_string_custom_property(
            "pushed_version"
        )
        for _ in range(3)
    ]
    assert versions == ["1000", "1001", "1002"]
    assert sorted(path.name for path in (tmp_path / "serving").iterdir()) == versions
