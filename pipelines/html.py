"""Pages of tables, whole in one file: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STYLE = (
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}th,td{padding:.3em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}"
)


def write_html(file: Path, title: str, sections: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
    """Writes tables, one a section.

    Args:
        file: where to.
        title: of the page.
        sections: heading, and rows as column -> value; a column that a row does not have is empty there.
    """
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
    file.write_text("\n".join(parts) + "\n</html>\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:.6g}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))
