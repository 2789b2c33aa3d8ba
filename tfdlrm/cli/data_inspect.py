"""`tfdlrm data inspect`: what a dataset holds, before a model is trained on it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted
from tfdlrm.cli.evaluate import FORMATS
from tfdlrm.cli.outputs import check_outputs, write_json

if TYPE_CHECKING:
    from tfdlrm.data.inspect.report import DataReport

DESCRIPTION = """\
Missing cells, numbers of ids, distributions, label rates, drift from the training part, and what looks wrong:
constants, leaks, rows that cannot be read. Rows are read in blocks, so a file may be larger than the memory.
"""
_MOST_GROUPS = 14  # days shown on a terminal; the page has all of them
_SECONDS_BETWEEN_SIGNS = 2.0


def add_command(parts: Any) -> None:
    """Adds `inspect` to the commands of `tfdlrm data`."""
    parser = parts.add_parser(
        "inspect", help="statistics, drift and suspicious columns of a dataset", description=DESCRIPTION
    )
    parser.add_argument("path", metavar="PATH", help="a raw file, MovieLens's folder, or a prepared folder")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: by name and content of PATH",
    )
    parser.add_argument(
        "--schema",
        metavar="FILE",
        help="schema.yaml of raw rows; default: that of the format, else the one beside PATH",
    )
    parser.add_argument(
        "--test", metavar="PATH", help="a second raw file, compared with PATH; default: the last group of rows of PATH"
    )
    parser.add_argument("--id-modulo", type=int, metavar="N", help="take integer and hex ids modulo N")
    parser.add_argument("--max-rows", type=int, metavar="N", help="read no more rows (of each part)")
    parser.add_argument("--sections", type=int, metavar="N", help="groups of contiguous rows; default: 7")
    parser.add_argument("--day-column", metavar="NAME", help="column of dates, seconds since 1970 or numbers of days")
    parser.add_argument(
        "--max-distinct",
        type=int,
        metavar="N",
        help="ids of a column counted exactly, at about 40 bytes each; default: 5000000",
    )
    parser.add_argument("--html", metavar="FILE", help="write one page with tables and plots there")
    parser.add_argument("--png", metavar="FILE", help="write the overview plots there")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.set_defaults(run=_run, needs_tensorflow=False)


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.inspect import inspect_data

    # before minutes of reading, and not after
    check_outputs(arguments, files=("html", "png", "json"))
    given = {
        "num_sections": arguments.sections,
        "max_distinct": arguments.max_distinct,
    }
    report = inspect_data(
        arguments.path,
        data_format=arguments.format,
        schema=arguments.schema,
        test_path=arguments.test,
        id_modulo=arguments.id_modulo,
        max_rows=arguments.max_rows,
        day_column=arguments.day_column,
        progress=_progress() if sys.stderr.isatty() else None,
        **{name: value for name, value in given.items() if value is not None},
    )
    _print(report)
    if arguments.json is not None:
        write_json(arguments.json, report.to_dict())
    if arguments.html is not None:
        from tfdlrm.data.inspect.plots import to_html

        Path(arguments.html).write_text(to_html(report), encoding="utf-8")
    if arguments.png is not None:
        from tfdlrm.data.inspect.plots import overview_png

        Path(arguments.png).write_bytes(overview_png(report))


def _print(report: DataReport) -> None:
    from tfdlrm.cli.tables import print_table
    from tfdlrm.data.inspect.tables import BAD_ROWS, FINDINGS, report_tables, summary_lines

    for line in summary_lines(report):
        print(line)
    print()
    for table in report_tables(report, most_groups=_MOST_GROUPS):
        # sentences are cut in a table as wide as a terminal
        if table.title in (FINDINGS, BAD_ROWS):
            continue
        # a title inside a narrow table would be broken to its width
        print(table.title)
        print_table("", table.header, table.rows, table.text_columns)
    for estimate in report.estimates:
        print(f"estimate  {estimate}")
    for bad in report.bad_rows:
        column = f"column {quoted(bad.column)}: " if bad.column else ""
        print(f"bad rows  {bad.rows:,}: {column}{bad.reason}. The first: {bad.example}")
    for found in report.findings:
        print(f"{found.severity:8}  {found.column + ': ' if found.column else ''}{found.text}")
    if not report.findings:
        print("no findings")


def _progress() -> Any:
    """Says on the terminal's error stream how far reading is."""
    last = time.monotonic()

    def tell(num_rows: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_SIGNS:
            last = now
            print(f"{num_rows:,} rows read ...", file=sys.stderr)

    return tell
