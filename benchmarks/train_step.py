"""Compares the training step of this project with its peers, in turn, in one sitting.

    python benchmarks/train_step.py                    # batch 128 and 2048, all sides, three rounds
    python benchmarks/train_step.py --batch-sizes 16384 --rounds 5
    python benchmarks/train_step.py --embedding-dim 64 --max-rows 1000000 --batch-sizes 2048
    python benchmarks/train_step.py --model dcnv2      # MLPerf's DLRM-DCNv2, batch 2048, 300k rows a table at most
    python benchmarks/train_step.py --sides tfdlrm-sgd torch-sgd --record

A machine's speed drifts, so every round runs each side once, each in a process of its own, and what counts
is the ratio of the medians. Peers come from `python benchmarks/setup_peers.py`; one that is not installed
is named in the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from sides import SIDES, sides_of
from turns import Case, add_turn_arguments, run_comparison
from workload import DEFAULTS

BATCH_SIZES = {"dlrm": (128, 2048), "dcnv2": (2048,)}
TITLES = {"dlrm": "Training step", "dcnv2": "Training step of DLRM-DCNv2"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(BATCH_SIZES), default="dlrm")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 128 and 2048; 2048 for dcnv2")
    parser.add_argument("--embedding-dim", type=int, help="default: 16; 128 for dcnv2")
    parser.add_argument("--max-rows", type=int, help="cap on rows a table (default: all 33.8M; 300k for dcnv2)")
    parser.add_argument("--sides", nargs="+", metavar="SIDE", help=", ".join(sides_of("dlrm")))
    add_turn_arguments(parser, "train_step")
    arguments = parser.parse_args(argv)
    names = tuple(arguments.sides or sides_of(arguments.model))
    for name in names:
        if name not in SIDES or arguments.model not in SIDES[name].models:
            parser.error(f"no side {name!r} for {arguments.model}; choose from {', '.join(sides_of(arguments.model))}")
    base = DEFAULTS[arguments.model]
    given = {"embedding_dim": arguments.embedding_dim, "max_rows": arguments.max_rows}
    base = replace(base, **{field: value for field, value in given.items() if value is not None})
    sizes = arguments.batch_sizes or BATCH_SIZES[arguments.model]
    cases = [Case(workload=replace(base, batch_size=size), sides=names) for size in sizes]
    return run_comparison(TITLES[arguments.model], cases, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
