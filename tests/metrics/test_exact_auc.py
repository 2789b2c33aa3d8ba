"""ExactAUC inside Keras: exact at the end of evaluate, binned on the way, limits refused."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tests.devices import two_devices
from tests.metrics.keras_metric_cases import EXACT, model_of
from tfdlrm.metrics import BinnedAUC, ExactAUC

by_kind = pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.__name__)


def close_scores(num_rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Distinct logits that all fall into one bin of the histogram."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((num_rows, 1))
    labels = (rng.random((num_rows, 1)) < 1 / (1 + np.exp(-2 * noise))).astype(np.float32)
    return labels, (1.0 + 1e-6 * noise).astype(np.float32)


class LastStep(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        self.value = float(logs["exact_auc"])


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (tf.distribute.get_strategy, {}),
        (tf.distribute.get_strategy, {"steps_per_execution": 3}),
        (tf.distribute.get_strategy, {"run_eagerly": True}),
        (two_devices, {"steps_per_execution": 3}),
    ],
)
def test_evaluate_is_exact_where_the_bins_are_blind(strategy, options):
    labels, logits = close_scores()
    with strategy().scope():
        model = model_of([ExactAUC(), BinnedAUC()], **options)
    last = LastStep()
    for _ in range(2):  # the second must not see the rows of the first
        got = model.evaluate(logits, labels, batch_size=64, verbose=0, return_dict=True, callbacks=[last])
        assert got["exact_auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
        assert got["auc"] == 0.5
    if not options:
        assert last.value == 0.5, "the progress bar shows the binned value"


@by_kind
def test_memory_limit_reaches_the_accumulator(kind):
    metric = kind(memory_bytes=2**17)
    assert metric.accumulator.memory_bytes == 2**17
    assert kind.from_config(metric.get_config()).accumulator.memory_bytes == 2**17


def test_nan_scores_are_an_error_with_the_count():
    labels, logits = close_scores(64)
    logits[3] = logits[5] = np.nan
    model = model_of([ExactAUC()])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"2 of 64 scores are NaN; the first, in row 3"):
        model.evaluate(logits, labels, batch_size=64, verbose=0)


def test_xla_refuses_it():
    labels, logits = close_scores(64)
    model = model_of([ExactAUC()], jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="PyFunc"):
        model.evaluate(logits, labels, batch_size=64, verbose=0)


@by_kind
def test_a_cluster_of_processes_is_refused(kind, monkeypatch):
    cluster = {"worker": ["localhost:1", "localhost:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = type("Strategy", (), {"cluster_resolver": resolver})
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    metric = kind.__new__(kind)
    metric.name = "m"
    with pytest.raises(ValueError, match=r"one of 2 processes.*merge an ExactAUCAccumulator"):
        metric._refuse_clusters()


def test_exact_result_is_float64():
    metric = ExactAUC()
    assert math.isnan(float(metric.result()))
    metric.update_state([[1.0], [1.0], [0.0], [1.0]], [[3.0], [2.0], [1.0], [0.0]])
    assert metric.result().dtype == tf.float64
    assert float(metric.result()) == 2 / 3
