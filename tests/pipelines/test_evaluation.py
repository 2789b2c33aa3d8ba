"""TFMA's metrics are those of `tfdlrm evaluate`; a model that is not good enough is not pushed, and it is said why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.artifacts import BLESSED, LatestBlessed
from pipelines.config import EvaluationConfig, MetricBound
from pipelines.evaluation import BASELINE, CANDIDATE, eval_config, read_metrics
from pipelines.lineage import Execution, lineage
from pipelines.pipeline import create_pipeline
from pipelines.run_local import run_local
from pipelines.tfx_extra import tfx
from tests.pipelines.generated_rows import GENRES
from tests.pipelines.pipeline_run import Run, pipeline_run
from tfdlrm.training.run_evaluation import evaluate_run

BINNING = 2e-5  # of TFMA's AUC in 10,000 bins: 8e-6 was found on other rows
SLACK = MetricBound(slack=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def execution(run: Run, component: str) -> Execution:
    found = run.store.runs()[0].execution(component)
    assert found is not None
    return found


def test_metrics_equal_those_of_our_own_evaluation(run) -> None:
    found = read_metrics(execution(run, "Evaluator").outputs["evaluation"][0].uri)
    assert set(found) == {CANDIDATE}  # of a first run
    ours, theirs = evaluate_run(run.model_dir, part="validation").metrics, found[CANDIDATE]["all rows"]
    assert theirs["rows"] == ours["rows"]
    assert theirs["log_loss"] == pytest.approx(ours["log_loss"], abs=1e-6)
    assert theirs["calibration"] == pytest.approx(ours["calibration"], abs=1e-6)
    assert theirs["mean_label"] == pytest.approx(ours["base_rate"], abs=1e-6)
    assert theirs["auc"] == pytest.approx(ours["auc"], abs=BINNING)


def test_slices_are_there_and_in_the_report(run) -> None:
    found = read_metrics(execution(run, "Evaluator").outputs["evaluation"][0].uri)[CANDIDATE]
    assert set(found) == {"all rows", *(f"genre={genre}" for genre in GENRES)}
    report = Path(execution(run, "EvaluationReport").outputs["report"][0].uri)
    page = (report / "report.html").read_text()
    for name in found:
        assert f"<td>{name}</td>" in page
    assert f"{found['genre=drama']['auc']:.6g}" in page
    assert json.loads((report / "problems.json").read_text()) == []


def test_the_report_of_the_examples_has_every_column(run) -> None:
    report = Path(execution(run, "ExampleReport").outputs["report"][0].uri)
    page = (report / "report.html").read_text()
    assert "Split train" in page
    assert "Split eval" in page
    for name in ("click", "price", "pair of tags", "line"):
        assert page.count(f"<td>{name}</td>") == 2


def test_bounds_hold_for_all_rows_together_and_never_for_a_slice() -> None:
    config = EvaluationConfig(slices=(("genre",),), auc=MetricBound(minimum=0.6, slack=0.01))
    (auc, *_) = eval_config("click", config).metrics_specs[0].metrics
    assert not auc.HasField("threshold")
    (threshold,) = auc.per_slice_thresholds
    (spec,) = threshold.slicing_specs
    assert not spec.feature_keys
    assert threshold.threshold.value_threshold.lower_bound.value == 0.6
    assert threshold.threshold.change_threshold.absolute.value == -0.01


def test_a_worse_model_is_not_pushed(run, tmp_path) -> None:
    config = replace(
        run.config,
        push_to=str(tmp_path / "serving"),
        train=replace(run.config.train, epochs=1, learning_rate=1e-6),
        evaluation=replace(run.config.evaluation, auc=SLACK, log_loss=SLACK),
    )
    result = run_local(create_pipeline(config))
    assert result.pushed is None
    assert any(
        problem.startswith("Evaluator: auc is 0.") and "worse than the latest" in problem for problem in result.problems
    )
    assert any(problem.startswith("Evaluator: log_loss is 0.") for problem in result.problems)
    assert not (tmp_path / "serving").exists()
    assert result.run.state == "not pushed"
    judged = result.run.execution("Evaluator")
    assert judged is not None
    assert set(read_metrics(judged.outputs["evaluation"][0].uri)) == {CANDIDATE, BASELINE}
    found = lineage(run.store, result.run)
    assert found["pushed to"] == "nowhere"
    assert found["parent"] == execution(run, "Trainer").outputs["model"][0].uri


def test_a_model_too_good_to_be_true_is_not_pushed(run, tmp_path) -> None:
    """The run's own model, from the cache, under a bound that is below its AUC."""
    config = replace(
        run.config,
        push_to=str(tmp_path / "serving"),
        evaluation=EvaluationConfig(auc=MetricBound(maximum=0.51), calibration=MetricBound(minimum=3.0)),
    )
    result = run_local(create_pipeline(config))
    assert result.pushed is None
    auc, calibration = sorted(result.problems)
    assert "must be at most 0.51. Does a column give the label away?" in auc
    assert "must be at least 3." in calibration
    trained = result.run.execution("Trainer")
    assert trained is not None
    assert trained.state == "CACHED"


def test_lineage_names_rows_schema_code_and_config(run) -> None:
    found = lineage(run.store, run.store.runs()[0])
    assert found["pushed to"] == str(run.version)
    assert found["rows"] == str(run.data)
    assert "num_files:2" in found["fingerprint of the rows"]
    assert Path(found["schema"]) == run.artifact("SchemaGen/schema/*/schema.pbtxt").parent
    assert "+sha256." in found["code"]
    assert Path(found["config"]).is_file()
    assert found["parent"].startswith("none")


@pytest.mark.parametrize(
    ("candidate", "blessed", "expected"),
    [(9, {3: 1, 5: 1, 7: 0}, [5]), (5, {3: 1, 5: 1}, [3]), (3, {3: 1, 5: 1}, []), (9, {}, []), (9, {9: 1, 11: 1}, [])],
)
def test_the_baseline_is_the_latest_blessed_before_the_candidate(tmp_path, candidate, blessed, expected) -> None:
    def model(number: int) -> tfx.types.standard_artifacts.Model:
        artifact = tfx.types.standard_artifacts.Model()
        artifact.id, artifact.uri = number, str(tmp_path)
        return artifact

    blessings = []
    for number, is_blessed in blessed.items():
        blessing = tfx.types.standard_artifacts.ModelBlessing()
        blessing.set_int_custom_property("current_model_id", number)
        blessing.set_int_custom_property(BLESSED, is_blessed)
        blessings.append(blessing)
    given = {
        "candidate": [model(candidate)],
        "baseline": [model(number) for number in (3, 5, 7, 9, 11)],
        "blessing": blessings,
    }
    found = LatestBlessed("current_model_id").resolve_artifacts(None, given)
    assert [artifact.id for artifact in found["baseline"]] == expected


def test_a_baseline_whose_folder_is_gone_is_none(tmp_path) -> None:
    artifact = tfx.types.standard_artifacts.Model()
    artifact.id, artifact.uri = 3, str(tmp_path / "removed")
    blessing = tfx.types.standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("current_model_id", 3)
    blessing.set_int_custom_property(BLESSED, 1)
    candidate = tfx.types.standard_artifacts.Model()
    candidate.id = 9
    given = {"candidate": [candidate], "baseline": [artifact], "blessing": [blessing]}
    assert LatestBlessed("current_model_id").resolve_artifacts(None, given)["baseline"] == []
