"""When checkpoints are written: every N steps or M minutes, at the end of an epoch, and when asked to stop."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.config import ExperimentConfig
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models.base import inner_optimizer, training_loop_of
from tfdlrm.schema import FeatureSpec
from tfdlrm.stop_signals import StopSignals
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run_state import RunState
from tfdlrm.training.step_counter import diverged


class Checkpointing(keras.callbacks.Callback):
    """Writes checkpoints and `best.json`; comes after every callback that changes the RunState.

    Only whole updates are written: with gradient accumulation, a checkpoint that falls due in the middle of one is
    written after it. With several steps an execution, those that fall due inside one are written at its end.

    Args:
        state: of the run.
        directory: where they go.
        config, spec: saved with each.
        signals: tells whether the run was asked to stop.
    """

    def __init__(
        self, state: RunState, directory: ModelDir, config: ExperimentConfig, spec: FeatureSpec, signals: StopSignals
    ) -> None:
        super().__init__()
        train = config.train
        self._state = state
        self._directory = directory
        self._checkpoints = directory.checkpoints(train.keep_checkpoints)
        self._config, self._spec = config, spec
        self._signals = signals
        self._every_steps = train.checkpoint_every_steps
        self._every_seconds = None if train.checkpoint_every_minutes is None else 60 * train.checkpoint_every_minutes
        self._accumulate = train.gradient_accumulation_steps or 1
        self._last_step = state.step
        self._last_time = self._began = time.monotonic()
        self._elapsed_before = state.elapsed_seconds

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # the end of an epoch has its own, after validation
        if self._state.epoch_is_trained or not (self._signals.received or self._is_due()):
            return
        loop = training_loop_of(self.model)
        if loop is not None and not loop.hold():
            return  # until the workers have done what they are at; each tells
        if self._is_whole_update():
            self._save()
            if self._signals.received:
                self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state = self._state
        last = epoch + 1 == self._config.train.epochs or bool(self.model.stop_training)
        is_best = state.best is not None and state.best.step == state.step
        if state.has_ended(epoch) and (self._is_whole_update() or is_best or last):
            self._save()
            self._directory.save_best(state.best)
        elif not state.has_ended(epoch) and state.step != self._last_step and self._is_whole_update():
            # cut short, by a callback or by a signal during validation: resuming does the rest
            self._save()
        if self._signals.received:
            self.model.stop_training = True

    def _is_due(self) -> bool:
        if self._every_steps and self._state.step // self._every_steps > self._last_step // self._every_steps:
            return True
        return self._every_seconds is not None and time.monotonic() - self._last_time >= self._every_seconds

    def _is_whole_update(self) -> bool:
        """Not in the middle of an accumulation. A step that loss scaling skipped does not count as one."""
        return self._accumulate == 1 or int(inner_optimizer(self.model.optimizer)._iterations) % self._accumulate == 0

    def _save(self) -> None:
        state = self._state
        for weight in dense_weights(self.model.trainable_weights):
            if not np.isfinite(np.asarray(tf.convert_to_tensor(weight))).all():
                raise diverged(state, f"the weight {quoted(weight.path)} is no longer finite")
        state.resumable = self._is_whole_update()
        state.elapsed_seconds = self._elapsed_before + time.monotonic() - self._began
        self._checkpoints.save(self.model, state, self._config, self._spec)
        self._last_step, self._last_time = state.step, time.monotonic()
