"""`tfdlrm report`: how good a trained model is, where it is wrong, what it goes by."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.cli.evaluate import add_model, add_reading, add_rows, reading_options
from tfdlrm.cli.outputs import check_outputs, write_json

if TYPE_CHECKING:
    from tfdlrm.report.model_report import ModelReport


def add_command(commands: Any) -> None:
    """Adds `report`."""
    parser = commands.add_parser(
        "report",
        help="how good a trained model is, and where it is wrong",
        description="A verdict in three sentences, metrics with intervals, curves and the worst slices of a trained "
        "model, on the test part of its own data or on the rows of a file; on the terminal, and as one page.",
    )
    add_model(parser)
    add_rows(parser)
    add_reading(parser)
    parser.add_argument("--compare", metavar="OTHER_DIR", help="another run, whose best model scores the same rows")
    parser.add_argument("--label", metavar="NAME", help="of a model of several; default: the first")
    parser.add_argument(
        "--sample-rows", type=int, metavar="N", help="rows that slices are made of; default: 500000, drawn at random"
    )
    parser.add_argument("--minimum-rows", type=int, metavar="N", help="of a slice; default: 200, of few rows 50")
    parser.add_argument("--html", metavar="FILE", help="write one page with tables and plots there")
    parser.add_argument("--png", metavar="FOLDER", help="write each plot there")
    parser.add_argument(
        "--projector",
        metavar="FOLDER",
        help="write the vectors of the most frequent ids there, for TensorBoard's embedding projector",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.report.model_report import make_report

    check_outputs(arguments, files=("html", "json"), folders=("png", "projector"))
    given = {name: getattr(arguments, name) for name in ("label", "sample_rows", "minimum_rows", "projector")}
    report = make_report(
        arguments.model_dir,
        data=arguments.data,
        part=arguments.part,
        compare_with=arguments.compare,
        **reading_options(arguments),
        **{name: value for name, value in given.items() if value is not None},
    )
    _print(report)
    if arguments.json is not None:
        write_json(arguments.json, report.to_dict())
    pngs = None
    if arguments.png is not None:
        from tfdlrm.report.plots import report_pngs

        pngs, folder = report_pngs(report), Path(arguments.png)
        folder.mkdir(exist_ok=True)
        for name, png in pngs.items():
            (folder / f"{name}.png").write_bytes(png)
    if arguments.projector is not None:
        print(f"vectors: tensorboard --logdir {arguments.projector}, under Projector")
    if arguments.html is None:
        print("the page, with plots: the same command with --html report.html")
    else:
        from tfdlrm.report.page import to_html

        Path(arguments.html).write_text(to_html(report, pngs), encoding="utf-8")
        print(f"page: {arguments.html}")


def _print(report: ModelReport) -> None:
    from tfdlrm.cli.tables import print_table
    from tfdlrm.report.page import (
        SHOWN_SLICES,
        comparison_tables,
        importance_tables,
        metrics_table,
        slices_note,
        slices_table,
        summary_lines,
    )

    for line in (*summary_lines(report), "", *report.verdict, *report.notes, ""):
        print(line)
    if report.comparison is not None:
        print(f"{report.comparison.verdict}\n")
    slices = slices_table(report.slices[:SHOWN_SLICES], brief=True)
    comparison = comparison_tables(report, SHOWN_SLICES)
    for table in (metrics_table(report), *comparison, slices, *importance_tables(report, SHOWN_SLICES)):
        if table.rows:
            print(table.title)
            print_table("", table.header, table.rows, table.text_columns)
        if table is slices:
            print(f"{slices_note(report)}\n")
