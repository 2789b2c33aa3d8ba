"""`tfdlrm demo`: model beside teacher, one request beside the model, and an exit code that says if both are well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import savedmodels.serve_once
from savedmodels.commands import add_demo
from tfdlrm.cli.program import main
from tfdlrm.config import DataConfig, SyntheticConfig, apply_overrides, preset
from tfdlrm.training import demo


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    """The demo on few rows of three columns."""
    data = DataConfig(
        format="synthetic",
        split="time",
        synthetic=SyntheticConfig(num_rows=20000, num_dense=2, vocabulary_sizes=(9, 5, 3)),
    )
    config = replace(preset("quickstart"), data=data)
    config = apply_overrides(config, ["train.global_batch_size=64", "train.learning_rate=0.1"])
    monkeypatch.setattr(demo, "preset", lambda name: config)


@pytest.fixture(autouse=True)
def answer_in_this_process(monkeypatch):
    """The other process has a test of its own (test_serve_once.py)."""

    def serve_once(folder, inputs):
        signature = tf.saved_model.load(str(folder)).signatures["predict"]
        specs = signature.structured_input_signature[1]
        outputs = signature(**{name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()})
        return {name: output.numpy().tolist() for name, output in outputs.items()}

    monkeypatch.setattr(savedmodels.serve_once, "serve_once", serve_once)


def run(folder: Path) -> int:
    return main(["demo", "--model-dir", str(folder), "--quiet"], [add_demo])


def test_the_demo_compares_exports_and_serves(capsys, tmp_path):
    assert run(tmp_path / "demo") == 0
    out = capsys.readouterr().out
    assert "2,000 rows not trained on" in out
    assert "below the best possible, within 0.01" in out
    assert "apart, within 1e-6" in out
    assert (tmp_path / "demo" / "export" / "1" / "saved_model.pb").is_file()
    # a second demo replaces the first
    assert run(tmp_path / "demo") == 0
    assert [entry.name for entry in (tmp_path / "demo" / "export").iterdir()] == ["1"]


def test_a_model_far_below_the_best_possible_fails(capsys, monkeypatch, tmp_path):
    untrained = apply_overrides(demo.preset("quickstart"), ["train.learning_rate=0.0"])
    monkeypatch.setattr(demo, "preset", lambda name: untrained)
    assert run(tmp_path / "demo") == 1
    out = capsys.readouterr().out
    assert "below the best possible, FAILED: not within 0.01" in out
    assert "apart, within 1e-6" in out


def test_another_probability_than_the_models_fails(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(savedmodels.serve_once, "serve_once", lambda folder, inputs: {"probability": [[0.123]]})
    assert run(tmp_path / "demo") == 1
    assert "FAILED: not within 1e-6" in capsys.readouterr().out


def test_files_of_others_are_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert run(tmp_path) == 2
    assert "holds files that are not the demo's" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_teacher_is_the_best_on_its_own_labels(tmp_path):
    with demo.demo_folder(tmp_path / "demo") as folder:
        result = demo.run_demo(folder, verbose=0)
    assert result.metrics["rows"] == result.best["rows"] == 2000
    assert result.auc_gap == result.best["auc"] - result.metrics["auc"]
    assert result.metrics["base_rate"] == result.best["base_rate"]
    # 2000 rows: the labels drawn are as good as those expected within sampling error, 3 / sqrt(2000)
    assert np.isclose(result.expected_auc, result.best["auc"], atol=3 / np.sqrt(2000))
    assert np.isclose(result.expected_log_loss, result.best["log_loss"], atol=3 / np.sqrt(2000))


def test_data_without_a_teacher_are_refused(tmp_path):
    config = apply_overrides(demo.preset("quickstart"), ["data.split=none"])
    with pytest.raises(ValueError, match="split='none': the demo needs synthetic rows and a test part"):
        demo.run_demo(tmp_path, config)
