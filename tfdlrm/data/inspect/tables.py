"""A report as tables of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfdlrm.checks import quoted
from tfdlrm.data.inspect.dense_stats import QUANTILES
from tfdlrm.data.inspect.report import NOTABLE_PSI, DataReport, DenseStats, IdStats, LabelRate, LabelStats
from tfdlrm.pages.tables import NO_VALUE, TextTable, percent, shortened

FINDINGS = "Findings"
BAD_ROWS = "Bad rows, in no other number"

_TOP_SHOWN = 1


def summary_lines(report: DataReport) -> list[str]:
    """What was read, how, and how many rows."""
    lines = [
        f"{report.path}: {report.data_format} ({report.how_format})",
        f"{report.rows_read:,} rows read = {report.rows_used:,} used + {report.rows_set_aside:,} set aside",
    ]
    return lines + [f"{part.name}: {part.rows:,} rows ({part.what})" for part in report.parts]


def report_tables(report: DataReport, *, most_groups: int | None = None, all_drift: bool = False) -> list[TextTable]:
    """The tables that have a row.

    Args:
        report: what was found.
        most_groups: neighbouring days are joined until there are no more groups than that; None to keep all.
        all_drift: show every column and not only those that drift.
    """
    tables = [_findings(report), _bad_rows(report)]
    tables += [_label(report, label, most_groups) for label in report.labels if label.rows]
    tables += [_dense(report.dense), _ids(report.categorical), _drift(report, all_drift)]
    return [table for table in tables if table.rows]


def top_tables(report: DataReport) -> list[TextTable]:
    """The most frequent values of every column, one table a kind."""
    dense = tuple(
        (column.name, top.value, f"{top.count:,}", percent(top.share)) for column in report.dense for top in column.top
    )
    ids = tuple(
        (column.name, shortened(top.value, 60), _count(top.count, top.undercount), percent(top.share))
        for column in report.categorical
        for top in column.top
    )
    header = ("column", "value", "count", "share")
    tables = [
        TextTable(title="Frequent values of dense columns", header=header, rows=dense, text_columns=(0, 1)),
        TextTable(title="Frequent ids", header=header, rows=ids, text_columns=(0, 1)),
    ]
    return [table for table in tables if table.rows]


def joined_groups(groups: Sequence[LabelRate], most: int | None) -> list[LabelRate]:
    """Neighbouring groups taken together until there are at most `most`."""
    if most is None or len(groups) <= most:
        return list(groups)
    size = -(-len(groups) // most)
    joined = []
    for start in range(0, len(groups), size):
        some = groups[start : start + size]
        rows = sum(group.rows for group in some)
        positives = sum(group.rows * (group.rate or 0.0) for group in some)
        name = some[0].name if len(some) == 1 else f"{some[0].name} to {some[-1].name}"
        joined.append(LabelRate(name=name, rows=rows, rate=positives / rows if rows else None))
    return joined


def _findings(report: DataReport) -> TextTable:
    rows = tuple((found.severity, found.column or "(all)", found.text) for found in report.findings)
    return TextTable(title=FINDINGS, header=("", "column", "what"), rows=rows, text_columns=(0, 1, 2))


def _bad_rows(report: DataReport) -> TextTable:
    rows = tuple((bad.column or "(row)", bad.reason, f"{bad.rows:,}", bad.example) for bad in report.bad_rows)
    return TextTable(
        title=BAD_ROWS,
        header=("column", "reason", "rows", "the first"),
        rows=rows,
        text_columns=(0, 1, 3),
    )


def _label(report: DataReport, label: LabelStats, most_groups: int | None) -> TextTable:
    groups = joined_groups(label.by_section, most_groups)
    rows = [(group.name, f"{group.rows:,}", percent(group.rate)) for group in groups]
    rows.append(("all", f"{label.rows:,}", percent(label.rate)))
    return TextTable(
        title=f"Label {quoted(label.name)} by {report.grouped_by}", header=("", "rows", "rate"), rows=tuple(rows)
    )


def _dense(columns: Sequence[DenseStats]) -> TextTable:
    def row(column: DenseStats) -> Iterator[str]:
        yield column.name
        yield percent(column.missing_rate)
        yield f"{column.distinct:,}" if column.exact_counts else f">{column.distinct:,}"
        for name in ("min", *QUANTILES, "max"):
            yield _number(column.quantiles.get(name))
        yield _number(column.mean)
        yield _number(column.std)

    header = ("column", "missing", "distinct", "min", *QUANTILES, "max", "mean", "std")
    return TextTable(title="Dense columns", header=header, rows=tuple(tuple(row(column)) for column in columns))


def _ids(columns: Sequence[IdStats]) -> TextTable:
    def row(column: IdStats) -> Iterator[str]:
        yield column.name
        yield percent(column.missing_rate)
        yield f"{column.distinct:,}" if column.exact else f"~{column.distinct:,}"
        for share in (column.top_1_share, column.top_10_share, column.once_ids, column.once_share):
            yield percent(share)
        bag = column.bag_length
        yield NO_VALUE if bag is None else f"{bag[0]} / {bag[1]:.2f} / {bag[2]}"
        yield ", ".join(f"{shortened(top.value)} {top.share:.1%}" for top in column.top[:_TOP_SHOWN])

    header = (
        "column",
        "missing",
        "ids",
        "top 1% ids hold",
        "top 10% hold",
        "ids seen once",
        "they hold",
        "bag min/mean/max",
        "most frequent",
    )
    rows = tuple(tuple(row(column)) for column in columns)
    return TextTable(title="Categorical columns", header=header, rows=rows, text_columns=(0, 8))


def _drift(report: DataReport, all_drift: bool) -> TextTable:
    found = sorted(report.drift, key=lambda column: -column.psi)
    shown = [column for column in found if all_drift or column.psi > max(NOTABLE_PSI, column.noise)]
    rows = tuple(
        (
            column.name,
            column.kind,
            column.part,
            f"{column.psi:.4f}",
            f"{column.noise:.4f}",
            percent(column.unseen_share),
        )
        for column in shown
    )
    which = "" if all_drift else f", columns above {NOTABLE_PSI} and above noise ({len(shown)} of {len(found)})"
    return TextTable(
        title=f"Drift from train{which}",
        header=("column", "kind", "part", "PSI", "noise", "ids unseen in train"),
        rows=rows,
        text_columns=(0, 1, 2),
    )


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.5g}"


def _count(count: int, undercount: int) -> str:
    return f"{count:,}" if not undercount else f"{count:,} to {count + undercount:,}"
