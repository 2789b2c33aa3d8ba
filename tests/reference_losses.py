"""NumPy oracles of the losses, in float64: value of each entry and gradient with respect to the logit."""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), in the form that does not overflow for either sign."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def clamped_logit(x: np.ndarray, clamp: float) -> tuple[np.ndarray, np.ndarray]:
    """The logit of the clamped probability, and 1 where the clamp passes the gradient (its ends included)."""
    if not 0 < clamp < 1:
        return x, np.ones_like(x)
    # float32, as the model has it: whether an entry lies on the boundary depends on it
    limit = np.float32(np.log((1 - clamp) / clamp)).astype(np.float64)
    return np.minimum(np.maximum(x, -limit), limit), ((x >= -limit) & (x <= limit)).astype(np.float64)


def bce(x: np.ndarray, y: np.ndarray, clamp: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """-(y ln p + (1 - y) ln(1 - p))."""
    z, passes = clamped_logit(x.astype(np.float64), clamp)
    y = y.astype(np.float64)
    return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z), (sigmoid(z) - y) * passes


def mse(x: np.ndarray, y: np.ndarray, clamp: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(p - y)^2."""
    z, passes = clamped_logit(x.astype(np.float64), clamp)
    p = sigmoid(z)
    return (p - y) ** 2, 2 * (p - y) * p * sigmoid(-z) * passes


def wbce(
    x: np.ndarray, y: np.ndarray, weights: tuple[float, float], clamp: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """w[int(y)] times bce."""
    value, gradient = bce(x, y, clamp)
    weight = np.asarray(weights)[y.astype(np.int64)]
    return weight * value, weight * gradient
