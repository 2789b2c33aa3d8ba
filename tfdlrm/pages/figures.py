"""Parts of figures: bars with names, panels side by side, names that are safe to draw, PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfdlrm.pages.matplotlib_extra import Figure

BLUE, GREEN, ORANGE, GREY = "#2b6cb0", "#2f855a", "#dd6b20", "#718096"
_DOTS_PER_INCH = 110


def bars(panel: Any, names: Sequence[str], lengths: Sequence[float], colours: Any, label: str | None = None) -> None:
    """Draws one horizontal bar a name, the first at the top.

    Args:
        panel: to draw in.
        names, lengths: of the bars.
        colours: one, or one a bar.
        label: in the legend.
    """
    places = range(len(names))
    panel.barh(places, lengths, color=colours, label=label)
    panel.set_yticks(places, [plain(name) for name in names], fontsize=8)
    panel.set_ylim(max(len(names), 4) - 0.4, -0.6)
    panel.grid(axis="x", alpha=0.3)


def grid(num_panels: int) -> tuple[Any, list[Any]]:
    """A figure with so many small panels, five a line."""
    num_columns = min(5, num_panels)
    num_rows = -(-num_panels // num_columns)
    figure = Figure(figsize=(max(5.0, 2.7 * num_columns), 2.2 * num_rows + 0.4), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(num_rows, num_columns)).ravel())
    for panel in panels[num_panels:]:
        panel.set_axis_off()
    for panel in panels:
        panel.tick_params(labelsize=7)
    return figure, panels[:num_panels]


def legend(figure: Any, panel: Any) -> None:
    """One legend of the whole figure, of what one of its panels shows, if that is more than one thing."""
    handles, labels = panel.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8, frameon=False)


def say(panel: Any, text: str) -> None:
    """Words where there is nothing to draw."""
    panel.set_axis_off()
    panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes, color=GREY)


def plain(name: str) -> str:
    """A name that fits beside a plot; a dollar sign would begin a formula."""
    name = name if len(name) <= 40 else name[:37] + "..."
    return no_formula(name)


def no_formula(text: str) -> str:
    """Text in which a dollar sign is one."""
    return text.replace("$", r"\$")


def to_png(figure: Any) -> bytes:
    """A figure as PNG."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks, or a picture too full to be laid out well, is no error
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH)
    return stream.getvalue()
