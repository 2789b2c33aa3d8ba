"""The config of a pipeline: what it holds, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import EvaluationConfig, ExamplesConfig, MetricBound, PipelineConfig, ShiftConfig
from tests.pipelines.generated_rows import SPEC, small_config
from tfdlrm.config import apply_overrides

FILE = Path(__file__).resolve().parents[2] / "pipelines" / "config.yaml"


def small(**changes: object) -> PipelineConfig:
    config = small_config()
    return PipelineConfig(
        **{"name": "clicks", "data": "d", "root": "r", "schema": SPEC, "model": config.model, **changes}
    )


def test_the_file_of_the_package_names_every_parameter_and_comes_back() -> None:
    config = PipelineConfig.load(FILE)
    assert PipelineConfig.from_yaml(config.to_yaml()) == config
    text = FILE.read_text()
    for record in (config, config.examples, config.evaluation):
        for name in record.field_names():
            assert f"{name}:" in text, name
    assert len(config.schema.categorical) == 26
    assert len(config.schema.dense) == 13


def test_a_schema_may_be_a_file(tmp_path) -> None:
    file = SPEC.save(tmp_path)
    given = small().to_dict() | {"schema": str(file)}
    assert PipelineConfig.from_dict(given) == small()


def test_overrides_reach_every_part() -> None:
    changed = apply_overrides(
        small(), ["evaluation.auc.minimum=0.7", "examples.drift.default=0.2", "train.epochs=5", "root=/x"]
    )
    assert changed.evaluation.auc.minimum == 0.7
    assert changed.examples.drift.of("age") == 0.2
    assert changed.experiment.train.epochs == 5
    assert changed.serving == Path("/x/serving")


def test_raw_files_are_as_tfx_reads_them() -> None:
    schema = SPEC.to_dict() | {"raw": {"missing": ["?"]}}
    with pytest.raises(ValueError, match=r"schema\.raw\.missing is \['\?'\], and TFX reads files that have a header"):
        small(schema=type(SPEC).from_dict(schema))


def test_a_slice_may_be_a_column_or_several() -> None:
    config = EvaluationConfig.from_dict({"slices": ["genre", ["genre", "user"]]})
    assert config.slices == (("genre",), ("genre", "user"))
    assert EvaluationConfig.from_dict(config.to_dict()) == config


def test_a_column_has_its_own_threshold_or_none() -> None:
    shift = ShiftConfig(default=0.1, columns={"age": 0.5, "user": None})
    assert (shift.of("age"), shift.of("user"), shift.of("genre")) == (0.5, None, 0.1)
    assert ShiftConfig().of("age") is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small(candidates=("genr",)),
            "candidates names 'genr', which is no column of the schema, did you mean",
        ),
        (
            lambda: small(evaluation=EvaluationConfig(slices=(("genre", "nothing"),))),
            "evaluation.slices names 'nothing'",
        ),
        (
            lambda: small(examples=ExamplesConfig(drift=ShiftConfig(columns={"ages": 0.1}))),
            "examples.drift.columns names 'ages', which is no column of the schema, did you mean 'age'",
        ),
        (lambda: small(schema=replace(SPEC, labels=("click", "buy"))), "has 2 labels"),
        (lambda: small(quantize="int2"), "quantize='int2'"),
        (lambda: small(min_count=0), "min_count=0"),
        (lambda: small(name="a/b"), "name='a/b' cannot be in a path"),
        (lambda: ShiftConfig(default=1.5), "default=1.5"),
        (lambda: ExamplesConfig(max_nan=float("nan")), "max_nan=nan"),
        (lambda: MetricBound(slack=-0.1), "slack=-0.1 is negative"),
        (lambda: MetricBound(minimum=0.9, maximum=0.8), "minimum=0.9 is above maximum=0.8"),
        (lambda: EvaluationConfig(calibration=MetricBound(slack=0.1)), "calibration has slack=0.1"),
        (
            lambda: EvaluationConfig(auc=MetricBound(), log_loss=MetricBound(), calibration=MetricBound()),
            "no metric has a bound",
        ),
        (lambda: PipelineConfig.from_dict({"name": "x", "dta": "y"}), "dta"),
    ],
)
def test_what_cannot_be_is_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no config of a pipeline there"):
        PipelineConfig.load(tmp_path / "nowhere.yaml")
