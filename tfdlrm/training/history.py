"""history.csv: a line an epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import keras

from tfdlrm.training.checkpoint_folder import write_file
from tfdlrm.training.run_state import RunState


class HistoryLog(keras.callbacks.Callback):
    """Writes the metrics of every epoch to a CSV file, and holds them.

    A resumed run keeps the lines of epochs that it does not run again and drops the others, so that every epoch has
    one line. The file is replaced at once, never half written.

    Args:
        file: `history.csv`.
        state: of the run, at its first batch.

    Attributes:
        columns: name -> one value an epoch; the history of all sessions.
    """

    def __init__(self, file: Path, state: RunState) -> None:
        super().__init__()
        self._file = file
        self._state = state
        self._rows = [row for row in read_history(file) if row["epoch"] < state.epoch]

    @property
    def columns(self) -> dict[str, list[float | None]]:
        return {name: [row.get(name) for row in self._rows] for name in self._names()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._state.has_ended(epoch):
            return
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {name: float(value) for name, value in (logs or {}).items()}
        self._rows.append({"epoch": epoch, "step": self._state.step, "learning_rate": rate, **values})
        text = io.StringIO()
        writer = csv.DictWriter(text, self._names(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_file(self._file, text.getvalue())

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self._rows for name in row))


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of `history.csv`, one an epoch, as numbers; without empty cells. None where there is no file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]
    return [{**row, "epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]
