"""`tfdlrm predict`: the scores of a file's rows, in a file."""

from __future__ import annotations

import argparse
from typing import Any

from tfdlrm.cli.evaluate import add_model, add_reading, reading_options


def add_command(commands: Any) -> None:
    """Adds `predict`."""
    parser = commands.add_parser(
        "predict",
        help="score the rows of a file",
        description="Score the rows of a file, with or without labels, and write row ids, keys, labels if there are "
        "any, probability and logit, in the order of the rows.",
    )
    add_model(parser)
    parser.add_argument("--data", required=True, metavar="PATH", help="the rows")
    parser.add_argument(
        "--part",
        choices=("train", "validation", "test", "all"),
        help="of prepared data; default: the test part, or the only one",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="scores, as .csv, .tsv or .parquet")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="write contribution_<column> as well: the logit less that of the row with the column at its mean of the "
        "training rows",
    )
    add_reading(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.cli.tables import print_unknown_ids
    from tfdlrm.training.prediction import predict_file

    prediction = predict_file(
        arguments.model_dir,
        arguments.data,
        arguments.output,
        part=arguments.part,
        explain=arguments.explain,
        **reading_options(arguments),
    )
    books = prediction.books
    print(f"{prediction.rows_of}: {books.read:,} rows read = {books.used:,} scored + {books.set_aside:,} set aside")
    print_unknown_ids(prediction.unknown_ids)
    if prediction.quarantine is not None:
        print(f"rows set aside: {prediction.quarantine}")
    print(f"scores: {prediction.output}{'' if prediction.labelled else ' (the data have no labels)'}")
