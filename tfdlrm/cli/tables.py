"""Metrics and counts as tables on a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfdlrm.pages.tables import METRIC_MEANINGS


def format_number(value: float) -> str:
    """Counts with separators, the rest with six digits; NaN is said to be undefined.

    Example:
        >>> format_number(10000), format_number(0.5), format_number(float("nan"))
        ('10,000', '0.500000', 'undefined')
    """
    if isinstance(value, int):
        return f"{value:,}"
    return "undefined" if math.isnan(value) else f"{value:.6f}"


def print_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,)
) -> None:
    """Prints one table; columns that hold no text are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column, name in enumerate(header):
        table.add_column(name, justify="left" if column in text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # a pipe has no width, and tables cut to 80 columns are of no use to grep
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    console.print(table)


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """Prints metrics, one a line, with what they say."""
    rows = [(name, format_number(value), METRIC_MEANINGS.get(name, _meaning(name))) for name, value in metrics.items()]
    print_table(title, ("metric", "value", ""), rows, text_columns=(0, 2))


def _meaning(name: str) -> str:
    """Of several tasks, metrics are named `<task>_<metric>`."""
    return next((text for metric, text in METRIC_MEANINGS.items() if name.endswith(f"_{metric}")), "")


_SHOWN_COLUMNS = 8


def print_unknown_ids(columns: Mapping[str, tuple[float, float]]) -> None:
    """Prints which columns have more unknown ids than there were in training, the worst first.

    Args:
        columns: name -> (share, share in the validation part of training).
    """
    if not columns:
        return
    shown = [
        f"{name} {share:.1%} (validation part: {before:.1%})"
        for name, (share, before) in list(columns.items())[:_SHOWN_COLUMNS]
    ]
    more = "" if len(columns) <= _SHOWN_COLUMNS else f", and {len(columns) - _SHOWN_COLUMNS} more columns"
    print(
        f"unknown ids: {', '.join(shown)}{more}. The model knows no row for them: are the rows of another kind than "
        "those of training, or are ids written in another way?"
    )
