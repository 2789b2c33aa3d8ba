"""A report as one page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

from tfdlrm.data.inspect.plots import dense_png, ids_png, overview_png
from tfdlrm.data.inspect.report import DataReport
from tfdlrm.data.inspect.tables import FINDINGS, TextTable, report_tables, summary_lines, top_tables

_STYLE = """\
body { font: 14px/1.45 system-ui, sans-serif; color: #1a202c; margin: 2rem auto; max-width: 1240px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th { text-align: left; border-bottom: 2px solid #cbd5e0; }
th, td { padding: .2rem .7rem .2rem 0; vertical-align: top; }
td { border-bottom: 1px solid #edf2f7; }
.number { text-align: right; white-space: nowrap; }
tr.warning td:first-child { color: #c05621; font-weight: 600; }
img { max-width: 100%; height: auto; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
.estimates { background: #fffaf0; border-left: 4px solid #dd6b20; padding: .5rem 1rem; }
"""


def to_html(report: DataReport) -> str:
    """The whole page: findings, tables, and plots as embedded PNG."""
    pictures = [
        ("Overview", overview_png(report)),
        ("Dense columns: share of the present cells a bin, by part", dense_png(report)),
        ("Categorical columns: occurrences of the ids, most frequent first", ids_png(report)),
    ]
    tables = report_tables(report, all_drift=True)
    findings = "".join(_table(table) for table in tables if table.title == FINDINGS)
    pieces = [
        f"<h1>{escape(report.path)}</h1>",
        "<p>" + "<br>".join(escape(line) for line in summary_lines(report)) + "</p>",
        findings or f"<h2>{FINDINGS}</h2><p>None.</p>",
        _estimates(report.estimates),
        *(_picture(title, png) for title, png in pictures if png is not None),
        *(_table(table) for table in tables if table.title != FINDINGS),
        *(_details(table) for table in top_tables(report)),
    ]
    title = escape(f"Data: {report.path}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(piece for piece in pieces if piece)
        + "\n</body>\n</html>\n"
    )


def _picture(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<h2>{escape(title)}</h2>\n<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _estimates(estimates: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(estimate)}</li>" for estimate in estimates)
    return f'<div class="estimates">Estimates; all other numbers are exact.<ul>{items}</ul></div>' if items else ""


def _table(table: TextTable) -> str:
    return f"<h2>{escape(table.title)}</h2>\n{_rows(table)}"


def _details(table: TextTable) -> str:
    return f"<details><summary>{escape(table.title)}</summary>\n{_rows(table)}</details>"


def _rows(table: TextTable) -> str:
    def cell(tag: str, place: int, text: str) -> str:
        kind = "" if place in table.text_columns else ' class="number"'
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", place, name) for place, name in enumerate(table.header))
    body = []
    for row in table.rows:
        kind = ' class="warning"' if row[0] == "warning" else ""
        body.append(f"<tr{kind}>" + "".join(cell("td", place, text) for place, text in enumerate(row)) + "</tr>")
    lines = "\n".join(body)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'
