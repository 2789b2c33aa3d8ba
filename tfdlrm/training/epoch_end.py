"""What happens at the end of an epoch: validation, then the best epoch and early stopping."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.config import TrainConfig
from tfdlrm.data.dataset import Dataset
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.evaluation import Evaluator, metric_names
from tfdlrm.training.run_state import BestModel, RunState


class Validation(keras.callbacks.Callback):
    """Adds exact metrics of the validation part to the epoch's logs, as `val_<name>`, and ends the epoch.

    Without a validation part it only ends the epoch. An epoch that was cut short, or whose validation was, is not
    ended: the position stays where training goes on.

    Args:
        state: of the run.
        dataset: the validation part, or None.
        batch_size: rows a batch.
        group_by: key column of the grouped AUC.
        should_stop: asked before each batch.

    Attributes:
        scored: of the last epoch; see `Evaluator`.
    """

    def __init__(
        self,
        state: RunState,
        dataset: Dataset | None,
        *,
        batch_size: int,
        group_by: str | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._state = state
        self._dataset = dataset
        self._batch_size, self._group_by = batch_size, group_by
        self._should_stop = should_stop
        self._evaluator: Evaluator | None = None
        self.scored: dict[str, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._state.epoch_is_trained:
            return
        if self._dataset is not None:
            self._evaluator = self._evaluator or Evaluator(
                self.model, self._dataset, batch_size=self._batch_size, group_by=self._group_by, keep_scored=True
            )
            metrics = self._evaluator.metrics(self._should_stop)
            if metrics is None:
                return
            assert logs is not None
            logs.update({f"val_{name}": value for name, value in metrics.items()})
            self._state.unknown_ids = self._evaluator.unknown_ids
            self.scored = self._evaluator.scored
        self._state.epoch, self._state.batch = epoch + 1, 0


class BestEpoch(keras.callbacks.Callback):
    """Tracks the best epoch by one metric, and ends training when there was no better one for a while.

    NaN is never better. What it knows is in the RunState, so a resumed run goes on counting.

    Args:
        state: of the run.
        monitor: a name in the epoch's logs.
        mode: "max" or "min", which end of it is good.
        patience: epochs without improvement before training ends; None for never.
    """

    def __init__(self, state: RunState, *, monitor: str, mode: str, patience: int | None) -> None:
        super().__init__()
        self._state = state
        self._monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._patience = patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state = self._state
        if not state.has_ended(epoch):
            return
        value = float((logs or {})[self._monitor])
        if not math.isnan(value) and (state.best is None or self._sign * value > self._sign * state.best.value):
            name = Checkpoints.name_of(state.step)
            state.best = BestModel(step=state.step, epoch=epoch, monitor=self._monitor, value=value, checkpoint=name)
            state.epochs_without_improvement = 0
        else:
            state.epochs_without_improvement += 1
        if self.out_of_patience(state):
            self.model.stop_training = True

    def out_of_patience(self, state: RunState) -> bool:
        """Whether early stopping ends the run here."""
        return self._patience is not None and state.epochs_without_improvement >= self._patience


def check_monitor(
    train: TrainConfig, tasks: Sequence[str], step_metric_names: Sequence[str], *, has_validation: bool
) -> None:
    """Refuses a metric to monitor that no epoch will have.

    Args:
        train: `monitor` and `group_by`.
        tasks: names of the labels.
        step_metric_names: what the model itself logs.
        has_validation: whether there is a validation part.

    Raises:
        ValueError: lists the names there are.
    """
    validation = [f"val_{name}" for name in metric_names(tasks, train.group_by)]
    available = [*step_metric_names, *(validation if has_validation else ())]
    if train.monitor in available:
        return
    if train.monitor in validation:
        fix = (
            "the data has no validation part. Give data.validation_path or a split that makes one, or monitor one of: "
            f"{', '.join(available)}."
        )
    else:
        near = difflib.get_close_matches(train.monitor, available, n=1)
        hint = f", did you mean {quoted(near[0])}?" if near else "."
        fix = f"there is no such metric{hint} There are: {', '.join(available)}."
    raise ValueError(f"TrainConfig: monitor={quoted(train.monitor)}: {fix}")
