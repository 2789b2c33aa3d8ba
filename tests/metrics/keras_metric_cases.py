"""Rows for the Keras metrics, and what each metric is of them in NumPy and scikit-learn."""

from __future__ import annotations

import keras
import numpy as np
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tfdlrm.metrics import (
    PRAUC,
    Accuracy,
    BinnedAUC,
    Calibration,
    ExactAUC,
    ExactPRAUC,
    LogLoss,
    NormalizedEntropy,
)

BINNED = (BinnedAUC, PRAUC)
EXACT = (ExactAUC, ExactPRAUC)
MEANS = (LogLoss, NormalizedEntropy, Calibration, Accuracy)
ALL = (*BINNED, *EXACT, *MEANS)


def make_rows(num_rows: int, num_tasks: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels `[B, T]`, logits `[B, T]`, weights `[B]`), float32; logits in quarters, so that ties occur."""
    rng = np.random.default_rng(seed)
    logits = np.round(4 * (1.5 * rng.standard_normal((num_rows, num_tasks)) - 1)).astype(np.float32) / 4
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return labels, logits, rng.integers(1, 5, num_rows).astype(np.float32)


def expected(kind: type, labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The metric of `[B]` rows. Scores are quarters far enough apart that binning makes no further ties."""
    logits = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    w = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if kind in (BinnedAUC, ExactAUC):
        return roc_auc_score(labels, logits, sample_weight=w)
    if kind in (PRAUC, ExactPRAUC):
        return average_precision_score(labels, logits, sample_weight=w)
    if kind is LogLoss:
        return log_loss(labels, p, sample_weight=w)
    if kind is NormalizedEntropy:
        base = np.full(len(labels), np.average(labels, weights=w))
        return log_loss(labels, p, sample_weight=w) / log_loss(labels, base, sample_weight=w)
    if kind is Calibration:
        return (w * p).sum() / (w * labels).sum()
    return np.average(np.round(p) == labels, weights=w)


def model_of(metrics: list[keras.metrics.Metric], **compile_options: object) -> keras.Model:
    """A model that hands its input on as the logit."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)(inputs))
    options = {"jit_compile": False, **compile_options}
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), weighted_metrics=metrics, **options)
    return model
