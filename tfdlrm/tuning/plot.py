"""A search as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.pages.tables import NO_VALUE, TextTable
from tfdlrm.tuning.search import Trial, TuneResult, value_text

_MOST_PANELS = 8


def board(trials: Sequence[Trial], monitor: str) -> TextTable:
    """Trials in the order given, with their values."""
    keys = list(dict.fromkeys(key for each in trials for key in each.values))
    rows = tuple(
        (
            str(each.number),
            each.state,
            NO_VALUE if math.isnan(each.value) else f"{each.value:.6f}",
            str(each.epochs),
            *(value_text(each.values.get(key), 4) for key in keys),
        )
        for each in trials
    )
    header = ("trial", "state", monitor, "epochs", *(key.rpartition(".")[2] for key in keys))
    return TextTable(title="Trials", header=header, rows=rows, text_columns=(0, 1))


def search_png(result: TuneResult) -> bytes:
    """The value of each trial and the best so far, and the value by each key, as PNG."""
    from tfdlrm.pages.figures import BLUE, GREY, ORANGE, grid, plain, to_png

    trials = sorted((each for each in result.trials if not math.isnan(each.value)), key=lambda each: each.number)
    keys = list(dict.fromkeys(key for each in trials for key in each.values))[:_MOST_PANELS]
    figure, panels = grid(1 + len(keys))
    complete = [each for each in trials if each.state == "complete"]
    others = [each for each in trials if each.state != "complete"]
    first = panels[0]
    first.plot([each.number for each in others], [each.value for each in others], ".", color=GREY, label="given up")
    first.plot([each.number for each in complete], [each.value for each in complete], ".", color=BLUE, label="complete")
    if complete:
        values = [each.value for each in complete]
        best = (np.maximum if result.mode == "max" else np.minimum).accumulate(values)
        first.plot([each.number for each in complete], best, color=ORANGE, linewidth=1.2, label="best so far")
        first.legend(fontsize=7, frameon=False)
    first.set_title(plain(result.monitor), fontsize=9)
    first.set_xlabel("trial", fontsize=8)
    for panel, key in zip(panels[1:], keys, strict=True):
        _draw(panel, key, others, GREY)
        _draw(panel, key, complete, BLUE)
        panel.set_title(plain(key.rpartition(".")[2]), fontsize=9)
    return to_png(figure)


def _draw(panel: Any, key: str, trials: Sequence[Trial], colour: str) -> None:
    values = [each.values[key] for each in trials]
    if all(isinstance(value, (int, float)) for value in values):
        panel.plot(values, [each.value for each in trials], ".", color=colour)
    else:
        panel.plot([value_text(value, 4) for value in values], [each.value for each in trials], ".", color=colour)
        panel.tick_params(axis="x", labelrotation=20)
