"""A report as pictures, and as one page that needs no other file and no network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfdlrm.data.inspect.report import LARGE_PSI, NOTABLE_PSI, DataReport
from tfdlrm.data.inspect.tables import FINDINGS, report_tables, summary_lines, top_tables
from tfdlrm.pages.figures import BLUE, GREEN, GREY, ORANGE, bars, grid, legend, no_formula, plain, say, to_png
from tfdlrm.pages.html import render
from tfdlrm.pages.matplotlib_extra import Figure

_COLOURS = {"train": BLUE, "validation": GREEN, "test": ORANGE}
_MOST_BARS = 26
_MOST_PANELS = 60
_MOST_TICKS = 8
_LONG_BAR = 1.5  # an index above it gets a logarithmic axis


def to_html(report: DataReport) -> str:
    """The whole page: findings, tables, and plots as embedded PNG."""
    tables = report_tables(report, all_drift=True)
    return render(
        "data.html",
        title=f"Data: {report.path}",
        path=report.path,
        summary=summary_lines(report),
        findings=next((table for table in tables if table.title == FINDINGS), None),
        estimates=report.estimates,
        pictures=[
            ("Overview", overview_png(report)),
            ("Dense columns: share of the present cells a bin, by part", dense_png(report)),
            ("Categorical columns: occurrences of the ids, most frequent first", ids_png(report)),
        ],
        tables=[table for table in tables if table.title != FINDINGS],
        details=top_tables(report),
    )


def overview_png(report: DataReport) -> bytes:
    """Label rate, missing cells, concentration of ids and drift on one picture, as PNG."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    (labels, missing), (ids, drift) = figure.subplots(2, 2)
    _draw_labels(labels, report)
    _draw_missing(missing, report)
    _draw_concentration(ids, report)
    _draw_drift(drift, report)
    return to_png(figure)


def dense_png(report: DataReport) -> bytes | None:
    """Histograms of the dense columns by part, as PNG; None if there is nothing to show."""
    columns = [column for column in report.dense if column.histogram is not None][:_MOST_PANELS]
    if not columns:
        return None
    figure, panels = grid(len(columns))
    for panel, column in zip(panels, columns, strict=True):
        histogram = column.histogram
        if histogram is None:
            continue
        for part, shares in histogram.shares.items():
            panel.stairs(shares, histogram.edges, color=_COLOURS.get(part, GREY), label=part, linewidth=1.3)
        panel.set_title(plain(column.name), fontsize=9)
        panel.set_xlabel("ln(1 + x)" if histogram.scale == "log1p" else "x", fontsize=8)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("share of present cells", fontsize=8)
    legend(figure, panels[0])
    return to_png(figure)


def ids_png(report: DataReport) -> bytes | None:
    """Occurrences by rank of the ids of each categorical column, as PNG; None if there is nothing to show."""
    columns = [column for column in report.categorical if column.curve][:_MOST_PANELS]
    if not columns:
        return None
    figure, panels = grid(len(columns))
    for panel, column in zip(panels, columns, strict=True):
        ranks, counts = zip(*column.curve, strict=True)
        panel.loglog(ranks, counts, color=_COLOURS["train"], marker=".", markersize=3, linewidth=1.2)
        about = "" if column.exact else "about "
        panel.set_title(f"{plain(column.name)}: {about}{column.distinct:,} ids", fontsize=9)
        panel.set_xlabel("rank of the id", fontsize=8)
        # a column of few ids would get no tick with a label of its own
        panel.set_xlim(0.8, max(10.0, 1.3 * max(ranks)))
        low, high = math.floor(math.log10(min(counts))), math.ceil(math.log10(max(counts)))
        panel.set_ylim(0.8 * 10.0**low, 1.25 * 10.0 ** max(high, low + 1))
        panel.minorticks_off()
    panels[0].set_ylabel("occurrences", fontsize=8)
    return to_png(figure)


def _draw_labels(panel: Any, report: DataReport) -> None:
    panel.set_title(no_formula(f"Label rate by {report.grouped_by}"), fontsize=10)
    labels = [label for label in report.labels if label.rows]
    if not labels:
        say(panel, "no labels")
        return
    names = [group.name for group in labels[0].by_section]
    for label in labels:
        rates = [np.nan if group.rate is None else 100.0 * group.rate for group in label.by_section]
        marker = "o" if len(names) <= 60 else ""
        panel.plot(range(len(names)), rates, marker=marker, markersize=4, label=plain(label.name))
    if len(labels) == 1 and labels[0].rate is not None:
        panel.axhline(100.0 * labels[0].rate, color=GREY, linewidth=0.8, linestyle="--", label="all rows")
    step = max(1, -(-len(names) // _MOST_TICKS))
    ticks = range(0, len(names), step)
    panel.set_xticks(ticks, [plain(names[tick]) for tick in ticks], rotation=20 if len(names) > 4 else 0)
    panel.set_ylabel("rows with label 1, %")
    panel.set_ylim(0, max(1.1 * panel.get_ylim()[1], 0.1))
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize=8, loc="best", frameon=False)


def _draw_missing(panel: Any, report: DataReport) -> None:
    panel.set_title("Empty cells", fontsize=10)
    rates = [(dense.name, dense.missing_rate or 0.0) for dense in report.dense]
    rates += [(ids.name, ids.missing_rate or 0.0) for ids in report.categorical]
    rates = sorted((rate for rate in rates if rate[1] > 0.0), key=lambda rate: -rate[1])
    if not rates:
        say(panel, "none (prepared data have them filled)" if report.data_format == "prepared" else "none")
        return
    shown = rates[:_MOST_BARS]
    bars(panel, [name for name, _ in shown], [100.0 * rate for _, rate in shown], _COLOURS["train"])
    left_out = "" if len(shown) == len(rates) else f" ({len(shown)} of {len(rates)} columns that have some)"
    panel.set_xlabel(f"cells of the column, %{left_out}")
    panel.set_xlim(0, min(100.0, 115.0 * shown[0][1]))


def _draw_concentration(panel: Any, report: DataReport) -> None:
    panel.set_title("What the most frequent ids hold", fontsize=10, loc="left")
    columns = [column for column in report.categorical if column.occurrences]
    if not columns:
        say(panel, "no ids")
        return
    # the columns with most ids are those whose tables matter
    shown = sorted(columns, key=lambda column: -column.distinct)[:_MOST_BARS]
    names = [f"{column.name} ({_brief(column.distinct)})" for column in shown]
    bars(panel, names, [100.0 * (column.top_10_share or 0.0) for column in shown], "#90cdf4", label="top 10 %")
    bars(panel, names, [100.0 * (column.top_1_share or 0.0) for column in shown], "#2b6cb0", label="top 1 %")
    panel.set_xlabel("occurrences, %; behind the name the number of ids")
    panel.set_xlim(0, 100)
    # above the panel: bars may reach any place within it
    panel.legend(
        fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, borderpad=0.1, handlelength=1
    )


def _draw_drift(panel: Any, report: DataReport) -> None:
    panel.set_title("Drift from train", fontsize=10)
    if not report.drift:
        say(panel, "no second part to compare with train")
        return
    several = len({column.part for column in report.drift}) > 1
    shown = sorted(report.drift, key=lambda column: -column.psi)[:_MOST_BARS]
    names = [f"{column.name}, {column.part}" if several else column.name for column in shown]
    colours = [_COLOURS["test"] if column.psi > max(NOTABLE_PSI, column.noise) else "#cbd5e0" for column in shown]
    bars(panel, names, [column.psi for column in shown], colours)
    panel.plot(
        [column.noise for column in shown],
        range(len(shown)),
        "|",
        color="black",
        markersize=9,
        label="noise without drift",
    )
    for bound in (NOTABLE_PSI, LARGE_PSI):
        panel.axvline(bound, color=GREY, linewidth=0.8, linestyle="--")
    if shown[0].psi > _LONG_BAR:
        # one column that changed wholly must not flatten the others
        panel.set_xscale("symlog", linthresh=LARGE_PSI)
        ticks = [0.0, NOTABLE_PSI, LARGE_PSI, 1.0, *(10.0**power for power in range(1, 4) if 10**power <= shown[0].psi)]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
    panel.set_xlim(0, max(1.05 * shown[0].psi, 1.2 * LARGE_PSI))
    scale = ", linear up to the second" if shown[0].psi > _LONG_BAR else ""
    panel.set_xlabel(f"population stability index; lines at {NOTABLE_PSI} and {LARGE_PSI}{scale}")
    panel.legend(fontsize=8, loc="lower right")


def _brief(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)
