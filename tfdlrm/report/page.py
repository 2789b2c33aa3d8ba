"""A model's report as tables, and as one page that needs no other file and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tfdlrm.pages.tables import METRIC_MEANINGS, NO_VALUE, TextTable, percent, shortened
from tfdlrm.report.drift import drifted
from tfdlrm.report.model_report import ModelReport
from tfdlrm.report.score_bins import METRICS, Interval
from tfdlrm.report.slices import FALSE_DISCOVERY_RATE, Slice

SHOWN_SLICES = 10
_MOST_SLICES = 200


def to_html(report: ModelReport, pngs: Mapping[str, bytes] | None = None) -> str:
    """The whole page.

    Args:
        report: what was found.
        pngs: its plots, where they are drawn already.
    """
    from tfdlrm.pages.html import render
    from tfdlrm.report.plots import plot_title, report_pngs

    pngs = report_pngs(report) if pngs is None else pngs
    return render(
        "model.html",
        title=f"Model: {report.model_dir}",
        report=report,
        facts=summary_lines(report),
        metrics=metrics_table(report),
        comparison=[table for table in comparison_tables(report) if table.rows],
        pictures=[(name, plot_title(name), png) for name, png in pngs.items()],
        slices=slices_table(report.slices[:SHOWN_SLICES]),
        all_slices=slices_table(report.slices[:_MOST_SLICES], folded=len(report.slices)),
        slices_note=slices_note(report),
        worst=worst_slice(report),
        importance=[table for table in importance_tables(report) if table.rows],
        tables=[table for table in more_tables(report) if table.rows],
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


def comparison_tables(report: ModelReport, most: int | None = None) -> list[TextTable]:
    """This model beside the other; nothing where there is none.

    Args:
        report: what was found.
        most: lines of each; None for all.
    """
    found = report.comparison
    if found is None:
        return []
    differences = tuple(
        (
            each.metric,
            *(number(value, 5) for value in (each.own, each.other)),
            NO_VALUE if math.isnan(each.difference) else f"{each.difference:+.5f}",
            interval(each.interval, 5),
        )
        for each in found.differences
    )
    tables = [
        TextTable(
            title=f"Beside {found.other_dir}",
            header=("metric", "this model", "the other", "difference", "95 % interval"),
            rows=differences,
        )
    ]
    for title, slices in (("Where this model is worse", found.worse), ("Where this model is better", found.better)):
        rows = tuple(
            (
                shortened(f"{each.column} = {each.value}", 70),
                f"{each.rows:,}",
                f"{each.positives / each.rows:.3%}",
                f"{each.loss:+.5f}",
                interval(each.interval, 5),
            )
            for each in slices[:most]
        )
        header = ("rows with", "rows", "positives", "log loss, difference", "95 % interval")
        tables.append(TextTable(title=title, header=header, rows=rows))
    moved = tuple((each.row, str(each.label), f"{each.own:.4f}", f"{each.other:.4f}") for each in found.moved[:most])
    tables.append(
        TextTable(
            title="Rows that the two disagree on most",
            header=("row_id", "label", "this model", "the other"),
            rows=moved,
        )
    )
    return tables


def importance_tables(report: ModelReport, most: int | None = None) -> list[TextTable]:
    """What the model goes by: columns and tables, and ids.

    Args:
        report: what was found.
        most: lines of each; None for all.
    """
    columns = tuple(
        (
            shortened(each.name, 60),
            f"{each.loss_increase:.5f}",
            interval(each.interval, 5),
            f"{each.spread:.5f}",
            number(each.auc_drop, 5),
        )
        for each in report.importance[:most]
    )
    ids = tuple(
        (each.column, shortened(each.value, 60), f"{each.rows:,}", f"{each.effect:+.3f}", f"{each.share:.1%}")
        for each in report.ids[:most]
    )
    return [
        TextTable(
            title="What the model goes by: log loss that permuting a column adds",
            header=("column", "log loss +", "95 % interval", "spread of repeats", "AUC -"),
            rows=columns,
        ),
        TextTable(
            title="Ids that move logits most, against the column's other values",
            header=("column", "value", "rows", "logit", "of the column's effect"),
            rows=ids,
            text_columns=(0, 1),
        ),
    ]


def more_tables(report: ModelReport) -> list[TextTable]:
    """Tables of embeddings, frequent and rare ids, drift."""
    usage = tuple(
        (
            each.table,
            f"{each.rows:,}",
            str(each.width),
            percent(each.untrained / each.rows),
            *(f"{norm:.4g}" for norm in (each.norm, each.norm_99, each.norm_untrained)),
        )
        for each in report.tables
    )
    tails = tuple(
        (
            each.column,
            f"{each.head_ids:,}",
            *(f"{rows:,}" for rows in each.rows),
            *(number(auc) for auc in each.aucs),
            *(number(ratio, 3) for ratio in each.ratios),
            percent(each.unseen),
        )
        for each in report.tails or ()
    )
    drift = tuple(
        (
            "warning" if drifted(each) else "",
            each.name,
            each.kind,
            f"{each.psi:.4f}",
            f"{each.noise:.4f}",
            percent(each.unseen_share),
        )
        for each in report.drift or ()
    )
    return [
        TextTable(
            title="Embedding tables",
            header=("table", "rows", "width", "never trained", "norm, median", "99 %", "untrained"),
            rows=usage,
        ),
        TextTable(
            title="Frequent and rare ids: head is the ids that make up half of the training rows",
            header=(
                *(
                    "column",
                    "head ids",
                    "rows, head",
                    "tail",
                    "AUC, head",
                    "tail",
                    "predicted / observed, head",
                    "tail",
                ),
                "ids not among training rows looked at",
            ),
            rows=tails,
        ),
        TextTable(
            title="Drift from the training rows",
            header=("", "column", "kind", "PSI", "noise", "ids not among training rows looked at"),
            rows=drift,
            text_columns=(0, 1, 2),
        ),
    ]


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
        return f"No value of any column has {report.minimum_rows} rows, which a slice is to have."
    wrong = sum(each.is_wrong for each in report.slices)
    seen = {column for each in report.slices for column in each.columns}
    seen |= {name.partition(" = ")[0] for each in report.slices for name in each.alike}
    unseen = [name for name in report.rows.spec.input_names if name not in seen]
    left_out = f" No value of {shortened(', '.join(unseen), 100)} has as many." if unseen else ""
    return (
        f"{len(report.slices):,} slices have {report.minimum_rows} rows or more.{left_out} {wrong:,} are off, and "
        f"further off than the model is on the whole (warning); about {FALSE_DISCOVERY_RATE:.0%} of such are so by "
        "chance. Cost: about what a row of all rows would gain, in nats, were the slice shifted to what is observed."
    )


def number(value: float, digits: int = 4) -> str:
    """A metric; `-` where there is none."""
    return NO_VALUE if math.isnan(value) else f"{value:.{digits}f}"


def interval(given: Interval, digits: int = 4) -> str:
    """An interval; `-` where there is none."""
    low, high = given
    return NO_VALUE if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
