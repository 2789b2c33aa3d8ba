"""Counts steps into the RunState, and stops a run whose loss is no longer a number."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from tfdlrm.training.model_state import assign_metric_values
from tfdlrm.training.run_state import RunState


class TrainingDivergedError(RuntimeError):
    """The loss, or a dense weight, became NaN or infinite."""


class StepCounter(keras.callbacks.Callback):
    """Moves the RunState on; must come before every callback that reads it.

    Args:
        state: of the run; its position is that of the first batch.
        metrics: state of the model's metrics at that position, or None at the start of an epoch.
    """

    def __init__(self, state: RunState, metrics: list[np.ndarray] | None = None) -> None:
        super().__init__()
        self._state = state
        self._metrics = metrics
        self._first_batch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch != self._state.epoch:
            self._state.epoch, self._state.batch = epoch, 0
        self._first_batch = self._state.batch
        if self._metrics is not None:
            # Keras has just reset them
            assign_metric_values(self.model, self._metrics)
            self._metrics = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        state = self._state
        # with several steps an execution, the last one of an epoch may have fewer
        position = min(self._first_batch + batch + 1, state.batches_per_epoch)
        state.step += position - state.batch
        state.batch = position
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise diverged(state, f"the loss is {loss}")


def diverged(state: RunState, what: str) -> TrainingDivergedError:
    """The error, with the step."""
    return TrainingDivergedError(
        f"step {state.step} (epoch {state.epoch}, batch {state.batch} of {state.batches_per_epoch}): {what}. "
        "Lower train.learning_rate or set train.global_clipnorm, and train anew in another --model-dir; if it happens "
        "at once, look for extreme values in the dense columns."
    )
