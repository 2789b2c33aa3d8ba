"""Metrics of a run are those of its own model, on the rows that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tests.kernels import NATIVE, TENSORFLOW, kernels
from tests.training.csv_run import NUM_ROWS, csv_run, write_rows
from tests.training.small_run import SPEC, small_config, small_splits
from tfdlrm.data.opening import open_dataset
from tfdlrm.training import evaluation as evaluation_module
from tfdlrm.training.build import build_model
from tfdlrm.training.evaluation import scoring_function
from tfdlrm.training.prediction import load_run, predict_file, scored_batches
from tfdlrm.training.run import train
from tfdlrm.training.run_evaluation import evaluate_run


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(("part", "rows"), [("test", 40), ("validation", 40), ("train", 320)])
def test_metrics_agree_with_scikit_learn(model_dir, part, rows):
    evaluation = evaluate_run(model_dir, part=part)
    model, config, preprocessing = load_run(model_dir)
    batches = list(scored_batches(model, open_dataset(config.data, preprocessing=preprocessing).parts[part]))
    labels = np.concatenate([batch.labels for batch in batches])[:, 0]
    probabilities = np.concatenate([batch.probabilities for batch in batches])[:, 0].astype("f8")
    assert evaluation.rows_of == f"{part} part"
    assert evaluation.metrics["rows"] == rows
    assert evaluation.books.read == NUM_ROWS
    np.testing.assert_allclose(evaluation.metrics["auc"], roc_auc_score(labels, probabilities), rtol=1e-12)
    np.testing.assert_allclose(evaluation.metrics["log_loss"], log_loss(labels, probabilities), rtol=1e-6)


@pytest.mark.parametrize(
    ("which", "expected"), [(NATIVE, {"TfdlrmRows", "TfdlrmLookup", "TfdlrmInteract"}), (TENSORFLOW, set())]
)
def test_scoring_runs_by_the_kernels(which, expected):
    with kernels(which):
        model = build_model(small_config(), SPEC)
        spec = small_splits().train.batches(16).element_spec[0]
        graph = scoring_function(model, spec).get_concrete_function().graph
    assert {op.type for op in graph.get_operations() if op.type.startswith("Tfdlrm")} == expected


@pytest.mark.parametrize("command", ["evaluate", "predict", "validation"])
def test_every_command_scores_by_that_function(command, model_dir, tmp_path, monkeypatch):
    made = []

    def noted(model, features):
        function = scoring_function(model, features)
        made.append(function)
        return function

    monkeypatch.setattr(evaluation_module, "scoring_function", noted)
    if command == "evaluate":
        evaluate_run(model_dir)
    elif command == "predict":
        predict_file(model_dir, write_rows(tmp_path / "new.csv", 5), tmp_path / "scores.csv")
    else:
        train(small_config(epochs=1), tmp_path / "run", data=small_splits(), verbose=0)
    assert len(made) == 1
    assert made[0].experimental_get_tracing_count() == 1


def test_the_test_part_comes_first(model_dir):
    assert evaluate_run(model_dir).rows_of == "test part"


def test_another_file_is_encoded_as_the_training_rows_were(model_dir, tmp_path):
    whole = model_dir.parent / "rows.csv"
    lines = whole.read_text().splitlines()
    (tmp_path / "tail.csv").write_text("\n".join([lines[0], *lines[-40:]]) + "\n")
    by_file, by_part = evaluate_run(model_dir, data=tmp_path / "tail.csv"), evaluate_run(model_dir, part="test")
    assert by_file.metrics == pytest.approx(by_part.metrics, rel=1e-6)
    assert by_file.books.read == 40


def test_groups_default_to_those_of_the_run(model_dir):
    metrics = evaluate_run(model_dir).metrics
    assert metrics["gauc_groups"] + metrics["gauc_skipped_groups"] == 2  # sessions of 20 rows
    with pytest.raises(ValueError, match=r"group_by='shop' is no key.*session"):
        evaluate_run(model_dir, group_by="shop")


def test_rows_without_labels_have_no_metrics(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 5, labelled=False)
    with pytest.raises(ValueError, match=r"new\.csv: no column of labels \(click\).*tfdlrm predict"):
        evaluate_run(model_dir, data=data)


def test_a_part_that_is_not_there_is_named(model_dir, tmp_path):
    with pytest.raises(ValueError, match=r"part='test' names a part.*is given"):
        evaluate_run(model_dir, data=tmp_path / "new.csv", part="test")


def test_of_one_class_only_the_auc_is_undefined(model_dir, tmp_path):
    data = write_rows(tmp_path / "new.csv", 8)
    text = data.read_text().splitlines()
    data.write_text("\n".join([text[0], *(line[:-1] + "0" for line in text[1:])]) + "\n")
    metrics = evaluate_run(model_dir, data=data).metrics
    assert np.isnan(metrics["auc"])
    assert metrics["log_loss"] > 0
