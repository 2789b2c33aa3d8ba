"""What every Keras metric must do: be right, in a graph, under a strategy, with weights, tasks and round trips."""

from __future__ import annotations

import doctest
import importlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.devices import two_devices
from tests.metrics.keras_metric_cases import ALL, BINNED, EXACT, MEANS, expected, make_rows, model_of
from tfdlrm.metrics import PRAUC, Accuracy, BinnedAUC, Calibration, LogLoss, NormalizedEntropy

BATCHES = [slice(0, 100), slice(100, 101), slice(101, 350)]
by_kind = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def tolerance(kind: type) -> float:
    """The ranks are exact; the others see float32 losses and probabilities."""
    return 1e-9 if kind in (*BINNED, *EXACT) else 1e-6


@by_kind
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_value_over_batches(kind, weighted, compiled):
    labels, logits, weights = make_rows(350)
    metric = kind()
    update = tf.function(metric.update_state, reduce_retracing=True) if compiled else metric.update_state
    for batch in BATCHES:
        columns = [tf.constant(labels[batch]), tf.constant(logits[batch])]
        update(*columns, tf.constant(weights[batch])) if weighted else update(*columns)
    weights = weights if weighted else None
    assert float(metric.result()) == pytest.approx(
        expected(kind, labels[:, 0], logits[:, 0], weights), rel=tolerance(kind)
    )

    metric.reset_state()
    assert math.isnan(float(metric.result()))
    metric.update_state(labels, logits)
    assert float(metric.result()) == pytest.approx(expected(kind, labels[:, 0], logits[:, 0]), rel=tolerance(kind))


@by_kind
def test_from_probabilities(kind):
    labels, logits, _ = make_rows(300)
    metric = kind(from_logits=False)
    metric.update_state(labels, 1 / (1 + np.exp(-logits.astype(np.float64))))
    assert float(metric.result()) == pytest.approx(expected(kind, labels[:, 0], logits[:, 0]), rel=1e-6)


@by_kind
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_precision_of_the_logits(kind, dtype):
    labels, logits, _ = make_rows(300)
    metric = kind()
    metric.update_state(tf.cast(tf.constant(labels), dtype), tf.cast(tf.constant(logits), dtype))
    assert float(metric.result()) == pytest.approx(expected(kind, labels[:, 0], logits[:, 0]), rel=tolerance(kind))


@by_kind
def test_task(kind):
    labels, logits, weights = make_rows(300, num_tasks=3)
    for weight in (weights, weights[:, None], np.stack([weights * 0, weights, weights * 0], axis=1)):
        metric = kind(task=1)
        metric.update_state(labels, logits, weight)
        value = expected(kind, labels[:, 1], logits[:, 1], weights)
        assert float(metric.result()) == pytest.approx(value, rel=tolerance(kind))
    with pytest.raises(ValueError, match=r"3 tasks and `task` is not given\. Make one metric a task"):
        kind().update_state(labels, logits)
    with pytest.raises(ValueError, match=r"task=3 is out of range.*Give 0 to 2"):
        kind(task=3).update_state(labels, logits)


@by_kind
def test_rows_without_a_task_axis(kind):
    labels, logits, weights = make_rows(300)
    value = expected(kind, labels[:, 0], logits[:, 0], weights)
    for columns in ((labels[:, 0], logits[:, 0], weights), (labels[:, 0], logits, weights[:, None])):
        metric = kind(task=0)
        metric.update_state(*columns)
        assert float(metric.result()) == pytest.approx(value, rel=tolerance(kind))


@by_kind
def test_unknown_shapes(kind):
    """Labels out of a Python generator have no static shape."""
    labels, logits, weights = make_rows(300)
    metric = kind()
    spec = tf.TensorSpec(None, tf.float32)
    update = tf.function(metric.update_state, input_signature=[spec, tf.TensorSpec([None, 1], tf.float32), spec])
    update(labels, logits, weights)
    value = expected(kind, labels[:, 0], logits[:, 0], weights)
    assert float(metric.result()) == pytest.approx(value, rel=tolerance(kind))


@by_kind
def test_shapes_that_do_not_match_are_refused(kind):
    with pytest.raises(ValueError, match=r"labels of shape \(4, 2\) do not match predictions of shape \(4, 1\)"):
        kind().update_state(np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32))


@by_kind
def test_one_row_and_one_class_and_none(kind):
    metric = kind()
    assert math.isnan(float(metric.result()))
    metric.update_state(np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))
    assert math.isnan(float(metric.result()))
    metric.update_state([[0.0]], [[1.0]])
    value = float(metric.result())
    finite = {LogLoss: math.log1p(math.e), Accuracy: 0.0}
    assert value == pytest.approx(finite[kind], rel=1e-6) if kind in finite else math.isnan(value)


def assert_evaluates(model: keras.Model, kinds: tuple[type, ...]) -> None:
    labels, logits, weights = make_rows(300)
    got = model.evaluate(logits, labels, sample_weight=weights, batch_size=64, verbose=0, return_dict=True)
    for kind in kinds:
        value = expected(kind, labels[:, 0], logits[:, 0], weights)
        assert got[kind.__name__] == pytest.approx(value, rel=tolerance(kind)), kind.__name__


def metrics_of(kinds: tuple[type, ...]) -> list[keras.metrics.Metric]:
    return [kind(name=kind.__name__) for kind in kinds]


def test_keras_evaluate_and_fit():
    model = model_of(metrics_of(ALL))
    assert_evaluates(model, ALL)
    labels, logits, weights = make_rows(300)
    history = model.fit(
        logits, labels, batch_size=64, epochs=2, verbose=0, validation_data=(logits, labels, weights)
    ).history
    # the logit is the input times a positive weight, so ranks stay what they were, epoch by epoch
    for kind in EXACT:
        value = expected(kind, labels[:, 0], logits[:, 0], weights)
        np.testing.assert_allclose(history[f"val_{kind.__name__}"], [value] * 2, rtol=1e-9)
    for kind in ALL:
        assert all(math.isfinite(number) for number in history[kind.__name__] + history[f"val_{kind.__name__}"])


def test_replicas_are_added_up():
    with two_devices().scope():
        model = model_of(metrics_of(ALL))
    assert_evaluates(model, ALL)


def test_under_xla():
    labels, logits, weights = make_rows(300)
    metrics = metrics_of((*BINNED, *MEANS))

    @tf.function(jit_compile=True)
    def update(y, x, w):
        for metric in metrics:
            metric.update_state(y, x, w)
        return [metric.result() for metric in metrics]

    for metric, got in zip(metrics, update(labels, logits, weights), strict=True):
        value = expected(type(metric), labels[:, 0], logits[:, 0], weights)
        assert float(got) == pytest.approx(value, rel=tolerance(type(metric))), metric.name


@by_kind
def test_serialization(kind):
    metric = kind(name="mine", from_logits=False, task=2, **({"num_bins": 77} if kind in BINNED else {}))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is kind
    assert again.get_config() == metric.get_config()
    assert (again.name, again.task, again.from_logits, again.dtype) == ("mine", 2, False, "float64")


def test_names_are_distinct_and_stable():
    names = [kind().name for kind in ALL]
    assert names == [
        *("auc", "pr_auc", "exact_auc", "exact_pr_auc"),
        *("log_loss", "normalized_entropy", "calibration", "accuracy"),
    ]


@pytest.mark.parametrize("kind", MEANS, ids=lambda kind: kind.__name__)
def test_long_runs_do_not_lose_rows(kind):
    """float32 state stops counting at 2^24 rows."""
    metric = kind()
    metric.update_state([[1.0], [0.0]], [[1.0], [1.0]], [2.0**26, 2.0**26])
    before = float(metric.result())
    for _ in range(8):
        metric.update_state([[1.0]], [[1.0]], [1.0])
    assert float(metric.result()) != before


def test_accuracy_rounds_one_half_to_zero():
    metric = Accuracy()
    metric.update_state([[0.0], [1.0], [1.0], [0.0]], [[0.0], [0.0], [1e-3], [math.nan]])
    assert float(metric.result()) == 0.5
    metric = Accuracy(from_logits=False)
    metric.update_state([[0.0], [1.0]], [[0.5], [0.5]])
    assert float(metric.result()) == 0.5


def test_values_in_closed_form():
    labels, logits = [[1.0], [0.0], [0.0], [0.0]], [[0.0]] * 4
    for metric, value in (
        (LogLoss(), math.log(2)),
        (NormalizedEntropy(), math.log(2) / (0.25 * math.log(4) + 0.75 * math.log(4 / 3))),
        (Calibration(), 2.0),
        (Accuracy(), 0.75),
    ):
        metric.update_state(labels, logits)
        assert float(metric.result()) == pytest.approx(value, rel=1e-6)


def test_extreme_logits_and_probabilities_are_finite():
    for metric in (LogLoss(), BinnedAUC(), PRAUC(), Calibration()):
        metric.update_state([[1.0], [0.0], [0.0]], [[1e4], [-1e4], [1e4]])
        assert math.isfinite(float(metric.result()))
    metric = LogLoss(from_logits=False)
    metric.update_state([[1.0], [0.0]], [[0.0], [1.0]])
    assert float(metric.result()) == pytest.approx(23 * math.log(2), rel=1e-6)


MODULES = ["accuracy", "binned_auc", "calibration", "exact_auc", "log_loss"]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    assert doctest.testmod(importlib.import_module(f"tfdlrm.metrics.{module}")).failed == 0
