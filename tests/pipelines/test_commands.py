"""`tfdlrm pipeline run` and `show`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.commands import _config, add_pipeline
from tests.pipelines.pipeline_run import Run, pipeline_run
from tfdlrm.cli.program import main


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def file(run, tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(run.config.to_yaml())
    return path


def command(*arguments: object) -> int:
    return main(["pipeline", *map(str, arguments)], [add_pipeline])


def test_run_prints_a_line_a_component_and_where_the_model_is(run, file, capsys) -> None:
    assert command("run", file) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[:-1]]
    assert names[0] == "CsvExampleGen"
    assert names[-1] == "Pusher"
    assert "Transform" in names
    assert all(line.split()[1] in ("cached", "done") for line in lines[:-1])
    assert lines[-1] == f"pushed: {run.version}"


def test_a_model_that_is_not_pushed_is_exit_code_1(run, file, tmp_path, capsys) -> None:
    code = command(
        "run", file, "--quiet", "--set", "evaluation.auc.minimum=0.99", "--set", f"push_to={tmp_path}/serving"
    )
    assert code == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("Evaluator: auc is 0.")
    assert out[0].endswith("and must be at least 0.99.")
    assert out[-1] == "not pushed"


def test_what_fails_is_one_line_and_exit_code_2(run, file, tmp_path, capsys) -> None:
    assert command("run", file, "--data", tmp_path / "nowhere") == 2
    assert "nowhere: no folder with CSV files" in capsys.readouterr().err
    assert command("run", file, "--quiet", "--set", "examples.skew.columns={user: 0.0}") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "ExampleGate: the examples are not accepted: column 'user'" in error


def test_show_prints_runs_executions_artifacts_and_lineage(run, file, capsys) -> None:
    assert command("show", file, "--run", 1) == 0
    out = capsys.readouterr().out
    for text in (
        "runs",
        "run 1: executions",
        "run 1: artifacts",
        "run 1: lineage of the model",
        "Trainer.model_run",
        str(run.version),
    ):
        assert text in out


def test_show_refuses_what_is_not_there(run, file, tmp_path, capsys) -> None:
    assert command("show", file, "--run", 999) == 2
    assert "--run 999: there are" in capsys.readouterr().err
    assert command("show", file, "--root", tmp_path) == 2
    assert "no metadata store there. Run the pipeline first." in capsys.readouterr().err


def test_the_rows_of_another_folder_are_another_run(run, file) -> None:
    """`--data` is a text, whatever it looks like in YAML."""
    arguments = argparse.Namespace(config=file, data="2026", root="a: b", overrides=[])
    config = _config(arguments)
    assert config == replace(run.config, data="2026", root="a: b")
