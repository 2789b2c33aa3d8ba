"""What a run shows of itself: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any, TextIO

import keras

from tfdlrm.training.run_state import RunState

LINE_EVERY_SECONDS = 15.0
BAR_EVERY_SECONDS = 0.1
_SHOWN = ("loss", "auc", "accuracy")
_SHOWN_AT_END = (*_SHOWN, "val_auc", "val_log_loss", "val_gauc")


class Progress(keras.callbacks.Callback):
    """Epoch, steps, samples/s, time left and the main metrics.

    Samples/s leave out the first execution, which builds the graph, and whatever comes between epochs.

    Args:
        state: of the run.
        epochs: of the run.
        batch_size: rows a step.
        stream: where to; a terminal gets a bar that moves, anything else plain lines.
        line_every_seconds: how often a plain line is written.
    """

    def __init__(
        self,
        state: RunState,
        *,
        epochs: int,
        batch_size: int,
        stream: TextIO | None = None,
        line_every_seconds: float = LINE_EVERY_SECONDS,
    ) -> None:
        super().__init__()
        self._state = state
        self._epochs = epochs
        self._batch_size = batch_size
        self._stream = stream or sys.stdout
        self._line_every = line_every_seconds
        self._bar: Any = None
        self._task: Any = None
        self._clock = SampleClock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_began = self._last_shown = time.monotonic()
        self._clock.begin()
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(
                "", total=self._state.batches_per_epoch, epoch=f"{epoch + 1}/{self._epochs}", detail=""
            )
            self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        rows = self._rows(self._state.batch)
        self._clock.count(rows)
        now = time.monotonic()
        if now - self._last_shown < (self._line_every if self._bar is None else BAR_EVERY_SECONDS):
            return
        self._last_shown = now
        detail = self._detail(rows, logs or {})
        if self._bar is not None:
            self._bar.update(self._task, completed=self._state.batch, detail=detail)
        else:
            step = f"step {self._state.batch}/{self._state.batches_per_epoch}"
            self._print(f"epoch {self._state.epoch + 1}/{self._epochs}  {step}  {detail}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        ended = self._state.has_ended(epoch)
        if self._bar is not None and ended:
            self._bar.update(self._task, completed=self._state.batches_per_epoch)
        self._end_bar()
        place = f"epoch {epoch + 1}/{self._epochs}"
        if not ended:
            self._print(f"{place}  stopped at step {self._state.batch}")
            return
        spent = timedelta(seconds=round(time.monotonic() - self._epoch_began))
        metrics = "  ".join(f"{name} {logs[name]:.5f}" for name in _SHOWN_AT_END if logs and name in logs)
        rate = self._clock.per_second  # none where every epoch is one execution
        self._print(f"{place}  {spent}  {f'{rate:,.0f} samples/s  ' if rate else ''}{metrics}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._end_bar()

    def close(self) -> None:
        """Gives the terminal back, also when training ends in an error."""
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rows(self, batches: int) -> int:
        """Rows of the first so many batches of an epoch; the last one may have fewer."""
        return min(batches * self._batch_size, self._state.rows)

    def _detail(self, rows: int, logs: dict[str, float]) -> str:
        epoch_rows = self._rows(self._state.batches_per_epoch)
        rows_left = (self._epochs - self._state.epoch - 1) * epoch_rows + epoch_rows - rows
        rate = self._clock.per_second
        left = f"{timedelta(seconds=round(rows_left / rate))} left" if rate else "? left"
        metrics = "  ".join(f"{name} {logs[name]:.4f}" for name in _SHOWN if name in logs)
        return f"{rate:,.0f} samples/s  {left}  {metrics}"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class SampleClock:
    """Rows a second within an epoch, from the end of its first execution on."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._first: tuple[float, int] | None = None

    def begin(self) -> None:
        """A new epoch: its first execution is not measured."""
        self._first = None

    def count(self, rows: int) -> None:
        """So many rows of the epoch are done now."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, rows)
            return
        began, before = self._first
        if now > began:
            self.per_second = (rows - before) / (now - began)
