"""Reports of components: problems for programs, and a page of tables that is whole in one file, without script."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE, _PROBLEMS = "report.html", "problems.json"
_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}th,td{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}"
)


def write_report(
    folder: Path, title: str, problems: Sequence[str], sections: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
) -> None:
    """Writes `problems.json`, and `report.html` with the problems and tables.

    Args:
        folder: where to; made.
        title: of the page.
        problems: texts.
        sections: heading, and rows as column -> value; a column that a row does not have is empty there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _PROBLEMS).write_text(json.dumps(problems, indent=1) + "\n", encoding="utf-8")
    tables = [("Problems", [{"problem": text} for text in problems]), *sections]
    (folder / PAGE).write_text(_page(title, tables), encoding="utf-8")


def read_problems(folder: Path) -> list[str]:
    """The problems of a report."""
    found: list[str] = json.loads((folder / _PROBLEMS).read_text(encoding="utf-8"))
    return found


def _page(title: str, sections: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> str:
    parts = [f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"]
    parts += [f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"]
    for heading, rows in sections:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        if not rows:
            parts.append("<p>none</p>")
            continue
        parts.append(f"<table><thead><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in columns)}</tr></thead>")
        parts += [f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in columns)}</tr>" for row in rows]
        parts.append("</table>")
    return "\n".join(parts) + "\n</html>\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:.6g}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))
