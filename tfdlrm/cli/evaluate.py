"""`tfdlrm evaluate`: exact metrics of a trained model."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tfdlrm.cli.train import add_bad_rows

# as tfdlrm.data.inspect has them, whose import takes longer than `--help` may
FORMATS = ("criteo", "avazu", "csv", "parquet", "arrow", "movielens", "prepared")


def add_command(commands: Any) -> None:
    """Adds `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="exact metrics of a trained model",
        description="Exact metrics of a trained model, on the test part of its own data or on the rows of a file.",
    )
    add_model(parser)
    add_rows(parser)
    add_reading(parser)
    parser.add_argument("--group-by", metavar="KEY", help="key column of the grouped AUC (GAUC)")
    parser.add_argument("--json", metavar="FILE", help="write the metrics there as well")
    parser.set_defaults(run=_run)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds MODEL_DIR and `--checkpoint`."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="the --model-dir of a training run")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|NAME", help="default: best")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Adds which labelled rows: `--data` or `--part`."""
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--data", metavar="PATH", help="labelled rows; default: a part of the run's own data")
    rows.add_argument(
        "--part", choices=("test", "validation", "train"), help="default: the first of them that there is"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Adds how `--data` is read: `--format`, `--bad-rows`, `--batch-size`."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of --data; default: by its name and first bytes, else that of the training data",
    )
    add_bad_rows(parser)
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows scored at once")


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags of `add_reading`, and the checkpoint, as keyword arguments."""
    options = {"checkpoint": arguments.checkpoint, "data_format": arguments.format, "bad_rows": arguments.bad_rows}
    return options if arguments.batch_size is None else {**options, "batch_size": arguments.batch_size}


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.cli.tables import print_metrics, print_unknown_ids
    from tfdlrm.training.run_evaluation import evaluate_run

    evaluation = evaluate_run(
        arguments.model_dir,
        data=arguments.data,
        part=arguments.part,
        group_by=arguments.group_by,
        **reading_options(arguments),
    )
    print(evaluation.books)
    print_unknown_ids(evaluation.unknown_ids)
    print_metrics(evaluation.rows_of, evaluation.metrics)
    if arguments.json is not None:
        # JSON has no NaN
        plain = {name: None if math.isnan(value) else value for name, value in evaluation.metrics.items()}
        Path(arguments.json).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
