"""Every metric of a set of rows at once, exact, streaming or from arrays."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.metrics.checked_rows import check_rows
from tfdlrm.metrics.exact_auc_accumulator import ExactAUCAccumulator
from tfdlrm.metrics.grouped_auc import GroupedAUC
from tfdlrm.metrics.score_counts import DEFAULT_MEMORY_BYTES

_ROWS_PER_PIECE = 2**18  # arrays are read in pieces, so that large ones are not copied whole


class EvaluationAccumulator:
    """All exact metrics of one task over a stream of rows, in bounded memory (but for groups: see
    `GroupedAUC`).

    Args:
        from_logits: whether scores are logits (default) or probabilities.
        memory_bytes: limit of what the AUC holds; sorted runs go to disk beyond it.
        directory: where its temporary folder is made; None for the system's.

    Example:
        >>> evaluation = EvaluationAccumulator()
        >>> evaluation.update(labels=[0, 1, 1], scores=[-2.0, 0.5, 3.0])
        >>> evaluation.result()["auc"], evaluation.result()["accuracy"]
        (1.0, 1.0)
    """

    def __init__(
        self,
        *,
        from_logits: bool = True,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        directory: str | os.PathLike | None = None,
    ) -> None:
        self.from_logits = from_logits
        self.auc = ExactAUCAccumulator(memory_bytes=memory_bytes, directory=directory)
        self.grouped_auc: GroupedAUC | None = None
        # (sum, what rounding it lost): a plain sum over 1e9 rows drifts
        self._sums = {name: [0.0, 0.0] for name in ("loss", "predicted", "correct", "positive", "weight")}

    def update(self, labels: Any, scores: Any, groups: Any = None, weights: Any = None) -> None:
        """Add rows.

        Args:
            labels: `[N]` or `[N, 1]`, 0 or 1.
            scores: `[N]` or `[N, 1]`, logits, or probabilities where `from_logits` is false.
            groups: `[N]` keys (integers, strings or bytes) for the grouped AUC; in every update or in none.
            weights: `[N]` or `[N, 1]`, 0 or more; None for 1 a row.

        Raises:
            ValueError: a value or shape is not valid, or groups are given in some updates only.
        """
        scores = np.asarray(scores)
        rows = check_rows("EvaluationAccumulator", labels, scores, weights)
        if self.auc.num_rows and (groups is None) != (self.grouped_auc is None):
            now, before = ("missing", "with") if groups is None else ("given", "without")
            raise ValueError(
                f"EvaluationAccumulator: groups are {now} after {self.auc.num_rows} rows {before} them. "
                "Give them always or never."
            )
        loss, predicted = self._loss_and_probability(rows.labels, rows.scores, scores.dtype)
        if groups is not None:
            self.grouped_auc = self.grouped_auc or GroupedAUC()
            self.grouped_auc.update(rows.labels, rows.scores, groups, rows.weights)
        self.auc.update(rows.labels, rows.scores, rows.weights)
        correct = (rows.scores > (0.0 if self.from_logits else 0.5)) == rows.labels
        weight = np.ones(len(rows.labels)) if rows.weights is None else rows.weights
        terms = {"loss": loss, "predicted": predicted, "correct": correct, "positive": rows.labels}
        for name, values in terms.items():
            # a row of weight 0 does not count, though its loss be infinite
            self._add(name, float((values[weight > 0] * weight[weight > 0]).sum()))
        self._add("weight", float(weight.sum()))

    def result(self) -> dict[str, float]:
        """The metrics: NaN where one does not exist for these rows, never an error.

        Returns:
            `rows` (a count), `base_rate`, `auc`, `pr_auc`, `log_loss`, `normalized_entropy`, `calibration`,
            `accuracy`; with groups also `gauc`, `gauc_groups` and `gauc_skipped_groups` (groups of one
            class).
        """
        loss, predicted, correct, positive, total = (math.fsum(pair) for pair in self._sums.values())
        base_rate, log_loss = _ratio(positive, total), _ratio(loss, total)
        metrics: dict[str, float] = {
            "rows": self.auc.num_rows,
            "base_rate": base_rate,
            "auc": self.auc.result(),
            "pr_auc": self.auc.average_precision(),
            "log_loss": log_loss,
            "normalized_entropy": _ratio(log_loss, binary_entropy(base_rate)),
            "calibration": _ratio(predicted, positive),
            "accuracy": _ratio(correct, total),
        }
        if self.grouped_auc is not None:
            groups = self.grouped_auc.summary()
            metrics["gauc"] = groups.value
            metrics["gauc_groups"] = groups.num_groups
            metrics["gauc_skipped_groups"] = groups.num_skipped_groups
        return metrics

    def _loss_and_probability(
        self, labels: np.ndarray, scores: np.ndarray, given: np.dtype
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.from_logits:
            return log_losses(labels, scores), probability_of(scores)
        outside = int(np.count_nonzero((scores < 0) | (scores > 1)))
        if outside:
            raise ValueError(
                f"EvaluationAccumulator: {outside} of {len(scores)} scores are not probabilities. "
                "Give values in [0, 1], or logits with from_logits=True."
            )
        # a probability of 1 says no more than 1 - (the resolution of its own dtype)
        epsilon = float(np.finfo(given if given in (np.float32, np.float64) else np.float32).eps)
        right = np.where(labels > 0, scores, 1.0 - scores)
        return -np.log(np.clip(right, epsilon, 1.0 - epsilon)), scores

    def _add(self, name: str, value: float) -> None:
        pair = self._sums[name]
        if not math.isfinite(pair[0] + value):
            self._sums[name] = [pair[0] + value, 0.0]
            return
        total = math.fsum([*pair, value])
        self._sums[name] = [total, math.fsum([*pair, value, -total])]


def probability_of(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def log_losses(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Log loss of each row, in nats, in float64.

    Args:
        labels: [N], bool, or 0 and 1.
        logits: [N].
    """
    # of a hard label the loss is softplus of the logit the wrong way
    return np.logaddexp(0.0, np.where(labels > 0, -logits.astype(np.float64), logits))


def evaluate_arrays(
    labels: Any,
    logits: Any,
    groups: Any = None,
    *,
    weights: Any = None,
    from_logits: bool = True,
    tasks: Sequence[str] = (),
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> dict[str, float]:
    """All exact metrics of labels and scores held in arrays.

    Args:
        labels: `[B]` or `[B, T]`, 0 or 1.
        logits: of the same shape; probabilities where `from_logits` is false.
        groups: `[B]` keys for the grouped AUC, or None.
        weights: `[B]` or `[B, T]`, or None for 1 a row.
        tasks: names of the T columns, `task_0`, `task_1`... if not given.
        memory_bytes: limit of what the AUC holds beside the arrays.

    Returns:
        As `EvaluationAccumulator.result`; where T > 1 each name comes after its task's: `click_auc`.

    Raises:
        ValueError: shapes differ, or a value is not valid (a NaN score for example; the message has the
            count).

    Example:
        >>> evaluate_arrays([0, 1, 1], [-2.0, 0.5, 3.0])["auc"]
        1.0
    """
    labels, logits = np.asarray(labels), np.asarray(logits)
    if labels.shape != logits.shape and labels.size == logits.size and 1 in (*labels.shape[1:], *logits.shape[1:]):
        labels, logits = labels.reshape(-1), logits.reshape(-1)  # [B] beside [B, 1]
    if labels.shape != logits.shape or labels.ndim not in (1, 2):
        raise ValueError(
            f"evaluate_arrays: labels of shape {labels.shape} and logits of shape {logits.shape}. "
            "Give both [B] or both [B, T]."
        )
    num_rows, num_tasks = len(labels), labels.shape[1] if labels.ndim == 2 else 1
    names = list(tasks) or [f"task_{task}" for task in range(num_tasks)]
    if len(names) != num_tasks:
        raise ValueError(f"evaluate_arrays: {len(names)} task names for {num_tasks} task(s). Give one a column.")
    labels, logits = labels.reshape(num_rows, num_tasks), logits.reshape(num_rows, num_tasks)
    columns = {"groups": None if groups is None else np.asarray(groups)}
    columns["weights"] = None if weights is None else np.asarray(weights)
    for name, column in columns.items():
        if column is not None and (column.ndim == 0 or len(column) != num_rows):
            raise ValueError(f"evaluate_arrays: {name} of shape {column.shape} for {num_rows} rows. Give one a row.")
    metrics: dict[str, float] = {}
    for task, name in enumerate(names):
        weight = columns["weights"]
        if weight is not None and weight.ndim == 2 and weight.shape[1] == num_tasks:
            weight = weight[:, task]
        evaluation = EvaluationAccumulator(from_logits=from_logits, memory_bytes=memory_bytes)
        for start in range(0, num_rows, _ROWS_PER_PIECE):
            piece = slice(start, start + _ROWS_PER_PIECE)
            evaluation.update(
                labels[piece, task],
                logits[piece, task],
                None if columns["groups"] is None else columns["groups"][piece],
                None if weight is None else weight[piece],
            )
        prefix = f"{name}_" if num_tasks > 1 else ""
        metrics.update({prefix + key: value for key, value in evaluation.result().items()})
    return metrics


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def binary_entropy(rate: float) -> float:
    """Of a coin that falls on one side with probability `rate`, in nats."""
    if not 0.0 < rate < 1.0:
        return 0.0
    return -(rate * math.log(rate) + (1.0 - rate) * math.log1p(-rate))
