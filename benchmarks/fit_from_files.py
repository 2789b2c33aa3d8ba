"""Compares training from a file on disk, metrics and all, with the bare step of the same model.

    python benchmarks/fit_from_files.py                      # 409,600 rows of Criteo text, batch 128 and 2048
    python benchmarks/fit_from_files.py --batch-sizes 2048 --rows 1000000 --record

The file holds the rows of the shared workload in Criteo's text format; it is written once, to build/benchmarks.
Reading and encoding it comes before the first step and is no part of the rate; rows are then held in memory and
shuffled anew each epoch. Tables have the vocabularies found in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from comparison import Sitting
from criteo_file import criteo_file
from targets import Target
from turns import NUMBERS_DIR, Case, add_turn_arguments, run_comparison
from workload import Workload

FIT, BARE = "tfdlrm-files-fit", "tfdlrm-files-bare"
LEAST_SHARE = 0.95
# Whole executions of several steps an epoch, whatever their number: a shorter one would be counted as whole.
STEPS_MULTIPLE = 32


def file_workload(batch_size: int, rows: int, max_rows: int | None) -> Workload:
    """The workload whose batches are the file: at least `rows` rows."""
    steps = -(-rows // (batch_size * STEPS_MULTIPLE)) * STEPS_MULTIPLE
    return Workload(batch_size=batch_size, num_batches=steps, max_rows=max_rows)


def judged(sittings: Sequence[Sitting]) -> list[Target]:
    """One target a batch size."""
    return [
        sitting.target(
            f"batch {sitting.workload['batch_size']}: fit from the file over the bare step",
            FIT,
            BARE,
            at_least=LEAST_SHARE,
        )
        for sitting in sittings
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--rows", type=int, default=400_000, help="of the file, at least")
    parser.add_argument("--max-rows", type=int, help="cap on rows a table")
    add_turn_arguments(parser, "fit_from_files")
    arguments = parser.parse_args(argv)
    cases = []
    for batch_size in arguments.batch_sizes:
        workload = file_workload(batch_size, arguments.rows, arguments.max_rows)
        path = criteo_file(workload, NUMBERS_DIR)
        print(
            f"file: {path}, {batch_size * workload.num_batches:,} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True
        )
        cases.append(Case(title="From a file", workload=workload, sides=(FIT, BARE)))
    return run_comparison("Training from files", cases, arguments, targets=judged)


if __name__ == "__main__":
    raise SystemExit(main())
