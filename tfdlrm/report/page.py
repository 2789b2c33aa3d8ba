"""A model's report as tables, and as one page that needs no other file and no network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfdlrm.pages.tables import METRIC_MEANINGS, NO_VALUE, TextTable, shortened
from tfdlrm.report.model_report import ModelReport
from tfdlrm.report.score_bins import METRICS, Interval
from tfdlrm.report.slices import FALSE_DISCOVERY_RATE, Slice

SHOWN_SLICES = 10
_MOST_SLICES = 200


def to_html(report: ModelReport) -> str:
    """The whole page."""
    from tfdlrm.pages.html import render
    from tfdlrm.report.plots import plot_title, report_pngs

    pngs = report_pngs(report)
    return render(
        "model.html",
        title=f"Model: {report.model_dir}",
        report=report,
        facts=summary_lines(report),
        metrics=metrics_table(report),
        pictures=[(name, plot_title(name), png) for name, png in pngs.items()],
        slices=slices_table(report.slices[:SHOWN_SLICES]),
        all_slices=slices_table(report.slices[:_MOST_SLICES], folded=len(report.slices)),
        slices_note=slices_note(report),
        worst=worst_slice(report),
    )


def summary_lines(report: ModelReport) -> list[str]:
    """What was reported on."""
    return [
        f"{report.model_dir}, checkpoint {report.checkpoint}, label {report.label}",
        f"{report.rows_of}: {report.rows.num_rows:,} rows (all files: {report.books})",
    ]


def metrics_table(report: ModelReport) -> TextTable:
    """Metrics with their intervals, beside the constant's and, where known, the best possible."""
    header = ["metric", "value", "95 % interval", "constant", *(["best possible"] if report.best else []), ""]
    rows = []
    for name in METRICS:
        row = [name, number(report.metrics[name]), interval(report.intervals[name]), number(report.constant[name])]
        row += [number(report.best[name])] if report.best else []
        rows.append((*row, METRIC_MEANINGS[name]))
    return TextTable(title="Metrics", header=tuple(header), rows=tuple(rows), text_columns=(0, len(header) - 1))


def slices_table(slices: Sequence[Slice], *, folded: int | None = None, brief: bool = False) -> TextTable:
    """Slices in the order given.

    Args:
        slices: to show.
        folded: how many there are of all, for the title of the long table; None for the short one.
        brief: what a terminal has room for.
    """
    rows = tuple(
        (
            "warning" if each.is_wrong else "",
            shortened(each.name, 52 if brief else 90),
            f"{each.rows:,}",
            f"{each.rate:.3%}",
            f"{each.ratio:.3f}",
            interval(each.ratio_interval, 3),
            f"{1e6 * each.cost:.3g}",
            number(each.auc),
            *(() if brief else (interval(each.auc_interval), f"{each.log_loss:.4f}")),
        )
        for each in slices
    )
    shown = "" if folded is None or folded == len(slices) else f" (the first {len(slices)} of {folded:,})"
    return TextTable(
        title="Worst slices" if folded is None else f"All slices{shown}",
        header=(
            *("", "rows with", "rows", "positives", "predicted / observed", "95 % interval", "cost, 1e-6", "AUC"),
            *(() if brief else ("95 % interval", "log loss")),
        ),
        rows=rows,
        text_columns=(0, 1),
    )


def worst_slice(report: ModelReport) -> str:
    """The first of the slices, in words; "" where none is wrong beyond chance."""
    if not report.slices or not report.slices[0].is_wrong:
        return ""
    worst = report.slices[0]
    rates = f"{worst.predicted:.3%} predicted, {worst.rate:.3%} observed"
    return f"{shortened(worst.name, 120)}: {worst.rows:,} rows, {rates}."


def slices_note(report: ModelReport) -> str:
    """How many slices there are, and how many are wrong."""
    if not report.slices:
        return "No value of any column has enough rows."
    wrong = sum(each.is_wrong for each in report.slices)
    return (
        f"{len(report.slices):,} slices have enough rows. {wrong:,} are further off than the model is on the whole "
        f"(warning); about {FALSE_DISCOVERY_RATE:.0%} of such are so by chance. Cost: nats a row of all rows that "
        "would be saved, could the slice's probabilities be shifted to what is observed."
    )


def number(value: float, digits: int = 4) -> str:
    """A metric; `-` where there is none."""
    return NO_VALUE if math.isnan(value) else f"{value:.{digits}f}"


def interval(given: Interval, digits: int = 4) -> str:
    """An interval; `-` where there is none."""
    low, high = given
    return NO_VALUE if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
