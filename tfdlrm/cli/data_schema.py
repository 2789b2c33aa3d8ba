"""`tfdlrm data schema`: a schema proposed from a file."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

_EPILOG = """\
  tfdlrm data schema clicks.csv --label click > schema.yaml
  tfdlrm data schema census.data --label 42 --positive "50000+." > schema.yaml     # no header: the label's place

Then:
  tfdlrm data prepare clicks.csv prepared --schema schema.yaml --split random
  tfdlrm train dlrm --data prepared
"""


def add_command(parts: Any) -> None:
    """Adds `schema` to the commands of `tfdlrm data`."""
    parser = parts.add_parser(
        "schema",
        help="propose a schema.yaml for a CSV, Parquet or Arrow file",
        description="Look at the rows of a file and propose its schema, with the reason for each column in a comment.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="CSV, TSV and the like (plain, gzip, Zstandard), Parquet or Arrow")
    parser.add_argument("--label", required=True, metavar="COLUMN", help="its name; without a header its place, from 1")
    parser.add_argument("--positive", metavar="VALUE", help="which of the label's values is 1; default: 1, yes, true")
    header = parser.add_mutually_exclusive_group()
    header.add_argument("--header", action="store_const", const=True, help="the first line has names; default: told")
    header.add_argument("--no-header", dest="header", action="store_const", const=False, help="it is a row")
    parser.add_argument("--all-rows", action="store_true", help="look at all rows; default: the first 100,000")
    parser.set_defaults(run=_run, needs_tensorflow=False)


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.infer_files import propose_for_file

    file = arguments.file
    found = propose_for_file(
        file,
        arguments.label,
        positive=arguments.positive,
        header=arguments.header,
        all_rows=arguments.all_rows,
    )
    print(found.to_yaml(), end="")
    split = "random" if found.time_key is None else f"time-column --split-column {shlex.quote(found.time_key)}"
    bad = " --bad-rows quarantine" if found.has_bad_rows else ""
    print(
        f"next: tfdlrm data prepare {shlex.quote(file)} prepared --schema schema.yaml --split {split}{bad}",
        file=sys.stderr,
    )
