"""TFMA's Evaluator, and EvaluationReport: how good a model is, overall and by slice, and why it is not blessed."""

# without `from __future__ import annotations`: TFX reads the annotations of a component's function
import json
import math
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import DoubleValue

from pipelines.artifacts import Report
from pipelines.config import EvaluationConfig, MetricBound
from pipelines.report import write_report
from pipelines.tfx_extra import tfma, tfx

# as `tfdlrm evaluate` calls them -> TFMA's class, whether more is better, and its settings
_METRICS = {
    "auc": ("AUC", True, {"num_thresholds": 10_000}),
    "log_loss": ("BinaryCrossentropy", False, {}),
    "calibration": ("Calibration", None, {}),
}
_UNBOUNDED = {"rows": "ExampleCount", "mean_label": "MeanLabel", "mean_prediction": "MeanPrediction"}
CANDIDATE, BASELINE = "candidate", "baseline"


def eval_config(label: str, config: EvaluationConfig) -> tfma.EvalConfig:
    """The settings of Evaluator.

    Bounds hold for all rows together: a plain threshold of TFMA holds for every slice, and a slice of few rows then
    stops a better model.

    Args:
        label: the label's column.
        config: slices and bounds.
    """
    models = [
        tfma.ModelSpec(
            name=name,
            signature_name="serving_default",
            prediction_key="probability",
            label_key=label,
            model_type="tf_generic",  # a SavedModel of ours is no Keras model
            is_baseline=name == BASELINE,
        )
        for name in (CANDIDATE, BASELINE)
    ]
    metrics = [_metric(name, getattr(config, name)) for name in _METRICS]
    metrics += [
        tfma.MetricConfig(class_name=kind, config=json.dumps({"name": name})) for name, kind in _UNBOUNDED.items()
    ]
    slices = [tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=list(names)) for names in config.slices)]
    return tfma.EvalConfig(model_specs=models, slicing_specs=slices, metrics_specs=[tfma.MetricsSpec(metrics=metrics)])


def _metric(name: str, bound: MetricBound) -> tfma.MetricConfig:
    kind, more_is_better, settings = _METRICS[name]
    metric = tfma.MetricConfig(class_name=kind, config=json.dumps({"name": name, **settings}))
    if bound == MetricBound():
        return metric
    threshold = tfma.MetricThreshold()
    if bound.minimum is not None:
        threshold.value_threshold.lower_bound.CopyFrom(DoubleValue(value=bound.minimum))
    if bound.maximum is not None:
        threshold.value_threshold.upper_bound.CopyFrom(DoubleValue(value=bound.maximum))
    if bound.slack is not None:
        change = threshold.change_threshold
        direction = tfma.MetricDirection
        change.direction = direction.HIGHER_IS_BETTER if more_is_better else direction.LOWER_IS_BETTER
        change.absolute.CopyFrom(DoubleValue(value=-bound.slack if more_is_better else bound.slack))
    metric.per_slice_thresholds.add(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
    return metric


@tfx.dsl.components.component
def EvaluationReport(
    evaluation: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.ModelEvaluation],
    report: tfx.dsl.components.OutputArtifact[Report],
    settings: tfx.dsl.components.Parameter[str],
) -> None:
    """Writes `report.html` with the metrics of every slice, and `problems.json` with the bounds that do not hold.

    Args:
        evaluation: of Evaluator.
        report: the folder of both files.
        settings: an `EvaluationConfig` as JSON.
    """
    config = EvaluationConfig.from_dict(json.loads(settings))
    sections, problems = [], []
    for model, slices in read_metrics(evaluation.uri).items():
        sections.append((model, [{"slice": name, **metrics} for name, metrics in slices.items()]))
    result = tfma.load_validation_result(evaluation.uri)
    for validation in result.metric_validations_per_slice:
        problems += [_text(failure, config) for failure in validation.failures]
    for name in result.missing_slices:
        problems.append(f"no row of the slice {name}.")
    write_report(Path(report.uri), "Evaluation", problems, sections)


def read_metrics(folder: str) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics that an Evaluator wrote.

    Args:
        folder: of its artifact `evaluation`.

    Returns:
        Model (`candidate`, and `baseline` where there was one) -> slice (`all rows`, or `column=value, ...`) ->
        metric -> value.
    """
    written = tfma.load_eval_results([folder]).get_results()[0]
    # it names models where there are several
    names = [spec.name for spec in written.config.model_specs]
    found = {}
    for name in names if len(names) > 1 else [None]:
        result = tfma.load_eval_result(folder, model_name=name)
        found[name or CANDIDATE] = {
            ", ".join(f"{column}={value}" for column, value in key) or "all rows": _values(metrics)
            for key, metrics in sorted(result.get_metrics_for_all_slices().items(), key=lambda item: len(item[0]))
        }
    return found


def _values(metrics: dict[str, Any]) -> dict[str, float]:
    order = ("rows", *_METRICS, "mean_label", "mean_prediction")
    return {name: metrics[name]["doubleValue"] for name in order if "doubleValue" in metrics.get(name, {})}


def _text(failure: Any, config: EvaluationConfig) -> str:
    name = failure.metric_key.name
    value = failure.metric_value.double_value.value
    bound: MetricBound = getattr(config, name)
    if failure.message.strip():
        return f"{name}: {' '.join(failure.message.split())}"
    if math.isnan(value):
        return f"{name} is undefined. Have the rows for evaluation both labels?"
    if failure.metric_key.is_diff:
        return f"{name} is {abs(value):.6f} worse than the latest blessed model's, and {bound.slack:g} is allowed."
    if bound.maximum is not None and value > bound.maximum:
        hint = " Does a column give the label away?" if name == "auc" else ""
        return f"{name} is {value:.6f}, and must be at most {bound.maximum:g}.{hint}"
    return f"{name} is {value:.6f}, and must be at least {bound.minimum:g}."
