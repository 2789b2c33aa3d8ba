"""Rows that a metric on the host takes: label, score and perhaps weight each, checked and in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class CheckedRows(NamedTuple):
    """N rows: `labels` 0.0 or 1.0, `scores` not NaN, `weights` None where each row counts once."""

    labels: np.ndarray
    scores: np.ndarray
    weights: np.ndarray | None


def check_rows(owner: str, labels: Any, scores: Any, weights: Any = None) -> CheckedRows:
    """Rows as float64 columns; float32 and half-precision scores convert exactly, so ties stay ties.

    Args:
        owner: who asks, for messages.
        labels: `[N]` or `[N, 1]`, 0 or 1, any dtype.
        scores: `[N]` or `[N, 1]`, logits or probabilities; infinite ones are in order.
        weights: `[N]` or `[N, 1]`, finite and 0 or more, or None.

    Raises:
        ValueError: lengths differ, or a label, score or weight is not valid; the message has the count.
    """
    labels, scores = _column(owner, "labels", labels), _column(owner, "scores", scores)
    weights = None if weights is None else _column(owner, "weights", weights)
    for name, column in (("scores", scores), ("weights", weights)):
        if column is not None and len(column) != len(labels):
            raise ValueError(f"{owner}: {len(labels)} labels and {len(column)} {name}. Give one of each a row.")
    _refuse(owner, "labels", labels, (labels != 0) & (labels != 1), "are neither 0 nor 1", "Give 0 or 1")
    _refuse(owner, "scores", scores, np.isnan(scores), "are NaN", "Check the model's weights and its inputs")
    if weights is not None:
        bad = ~np.isfinite(weights) | (weights < 0)
        _refuse(owner, "weights", weights, bad, "are negative or not finite", "Give finite weights of 0 or more")
    return CheckedRows(labels, scores, weights)


def _column(owner: str, name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{owner}: {name} have shape {array.shape}. Give [N] or [N, 1]; of several tasks, one column at a time."
        )
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: {name} of dtype {array.dtype} are not numbers. Give floats or integers.") from error


def _refuse(owner: str, name: str, values: np.ndarray, bad: np.ndarray, what: str, fix: str) -> None:
    count = int(np.count_nonzero(bad))
    if count:
        first = int(np.argmax(bad))
        raise ValueError(
            f"{owner}: {count} of {len(values)} {name} {what}; the first, in row {first}, is {values[first]}. {fix}."
        )
