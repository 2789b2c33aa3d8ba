"""Keras's losses and metrics of probabilities, on a model whose output is logits.

`compile(loss="binary_crossentropy", metrics=["AUC", "accuracy"])` is what every tutorial writes. On logits those would
take -3.2 for a probability. Here losses get `from_logits=True`, and metrics the sigmoid of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tfdlrm.metrics import BinaryMetric

_LOSSES = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
_LOSS_FUNCTIONS = {
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
    keras.losses.binary_focal_crossentropy: keras.losses.BinaryFocalCrossentropy,
}
_METRICS = (
    keras.metrics.AUC,
    keras.metrics.BinaryAccuracy,
    keras.metrics.BinaryCrossentropy,
    keras.metrics.BinaryIoU,
    keras.metrics.FBetaScore,
    keras.metrics.FalseNegatives,
    keras.metrics.FalsePositives,
    keras.metrics.KLDivergence,
    keras.metrics.Precision,
    keras.metrics.PrecisionAtRecall,
    keras.metrics.Recall,
    keras.metrics.RecallAtPrecision,
    keras.metrics.SensitivityAtSpecificity,
    keras.metrics.SpecificityAtSensitivity,
    keras.metrics.TrueNegatives,
    keras.metrics.TruePositives,
)
# what Keras makes of these depends on the shapes of labels and output; here both are binary
_BY_SHAPE: dict[str, Callable[..., keras.metrics.Metric]] = {
    "accuracy": keras.metrics.BinaryAccuracy,
    "acc": keras.metrics.BinaryAccuracy,
    "crossentropy": keras.metrics.BinaryCrossentropy,
    "ce": keras.metrics.BinaryCrossentropy,
}
_METRIC_FUNCTIONS = {
    keras.metrics.binary_accuracy,
    keras.metrics.binary_crossentropy,
    keras.metrics.binary_focal_crossentropy,
    keras.metrics.kl_divergence,
}


@keras.saving.register_keras_serializable(package="tfdlrm")
class OfProbabilities(keras.metrics.Metric):
    """Another metric, of the sigmoid of the output.

    Args:
        metric: takes probabilities; its name is this one's.

    Example:
        >>> metric = OfProbabilities(keras.metrics.AUC())
        >>> metric.update_state([[1.0], [0.0]], [[2.0], [-3.0]])
        >>> float(metric.result())
        1.0
    """

    def __init__(self, metric: keras.metrics.Metric, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name or metric.name, dtype=dtype or metric.dtype)
        self.metric = metric

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # in float32, since half-precision probabilities near 1 are few
        probabilities = keras.ops.sigmoid(keras.ops.cast(y_pred, "float32"))
        return self.metric.update_state(y_true, probabilities, sample_weight=sample_weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "metric": keras.saving.serialize_keras_object(self.metric)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OfProbabilities:
        return cls(**{**config, "metric": keras.saving.deserialize_keras_object(config["metric"])})


def loss_on_logits(loss: Any) -> Any:
    """A loss as `compile` takes it, for logits: one of probabilities is made one of logits, others pass."""
    if isinstance(loss, (list, tuple)):
        return [loss_on_logits(one) for one in loss]
    if isinstance(loss, dict):
        return {name: loss_on_logits(one) for name, one in loss.items()}
    if loss is None:
        return None
    found = _made(keras.losses.get, loss)
    if found in _LOSS_FUNCTIONS:
        return _LOSS_FUNCTIONS[found](from_logits=True)
    if type(found) in _LOSSES and not found.from_logits:
        return type(found).from_config({**found.get_config(), "from_logits": True})
    return loss


def metrics_on_logits(metrics: Any) -> Any:
    """Metrics as `compile` takes them, for logits."""
    if isinstance(metrics, (list, tuple)):
        return [metrics_on_logits(one) for one in metrics]
    if isinstance(metrics, dict):
        return {name: metrics_on_logits(one) for name, one in metrics.items()}
    if isinstance(metrics, str) and metrics in _BY_SHAPE:
        return OfProbabilities(_BY_SHAPE[metrics](name=metrics))
    found = _made(keras.metrics.get, metrics)
    if type(found) is keras.metrics.MeanMetricWrapper and found._fn in _METRIC_FUNCTIONS:
        of_logits = (found._fn_kwargs or {}).get("from_logits", False)
        return metrics if of_logits else OfProbabilities(found)
    if isinstance(found, keras.metrics.Metric):
        probabilities = isinstance(found, (*_METRICS, BinaryMetric))
        # Keras's AUC keeps its own answer in an attribute with an underscore
        if probabilities and not (getattr(found, "from_logits", False) or getattr(found, "_from_logits", False)):
            return OfProbabilities(found, name=metrics if isinstance(metrics, str) else None)
    elif found in _METRIC_FUNCTIONS:
        return OfProbabilities(keras.metrics.MeanMetricWrapper(found, name=found.__name__))
    return metrics


def _made(get: Callable[[str], Any], identifier: Any) -> Any:
    """What an identifier of Keras's stands for: an instance or a function."""
    found = get(identifier) if isinstance(identifier, str) else identifier
    return found() if isinstance(found, type) else found
