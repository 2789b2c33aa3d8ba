"""`tfdlrm tune`: searches for a better config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.cli.outputs import check_outputs
from tfdlrm.cli.train import SIGNAL_EXIT_CODES, add_config, config_of, parse_seeds

if TYPE_CHECKING:
    from tfdlrm.tuning.search import TuneResult

_SHOWN_TRIALS = 10


def add_command(commands: Any) -> None:
    """Adds `tune`."""
    parser = commands.add_parser(
        "tune",
        help="search for a better config",
        description="Search for a better config by the validation part: trials are given up where they are behind, and "
        "the best few are settled by the mean of several seeds. Ctrl-C and SIGTERM stop it; --resume goes on.",
    )
    add_config(parser)
    parser.add_argument("--model-dir", metavar="DIR", required=True, help="where everything goes")
    parser.add_argument("--space", metavar="FILE", help="YAML: keys and their values; default: what pays most often")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="in all; default: 20")
    parser.add_argument(
        "--seeds", type=parse_seeds, default=[0, 1, 2], metavar="0,1,2", help="of the best few; default: 0,1,2"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search in --model-dir")
    parser.add_argument("--png", metavar="FILE", help="write a plot of the trials there")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    # of `config_of`: a search is one process
    parser.set_defaults(run=_run, cluster=None, parameter_servers=False, deterministic=False)


def _run(arguments: argparse.Namespace) -> int | None:
    from tfdlrm.tuning.search import tune
    from tfdlrm.tuning.space import Space

    check_outputs(arguments, files=("png",))
    if arguments.resume and (arguments.config is not None or arguments.space is not None or arguments.overrides):
        raise ValueError(
            "--resume goes on with the search's own config and space. Leave CONFIG, --set and --space out."
        )
    result = tune(
        None if arguments.resume else config_of(arguments),
        arguments.model_dir,
        space=None if arguments.space is None else Space.load(arguments.space),
        trials=arguments.trials,
        seeds=arguments.seeds,
        resume=arguments.resume,
        verbose=0 if arguments.quiet else 1,
    )
    _print(result)
    if arguments.png is not None:
        from tfdlrm.tuning.plot import search_png

        Path(arguments.png).write_bytes(search_png(result))
    if result.interrupted_by is not None:
        print(
            f"stopped by {result.interrupted_by}; go on with: tfdlrm tune --resume --model-dir {arguments.model_dir} "
            f"--trials {arguments.trials}"
        )
        return SIGNAL_EXIT_CODES[result.interrupted_by]
    print(f"best config: {result.best_file}; train it: tfdlrm train {result.best_file} --model-dir DIR")
    return None


def _print(result: TuneResult) -> None:
    from tfdlrm.cli.tables import print_table
    from tfdlrm.tuning.plot import board

    trials = board(result.trials[:_SHOWN_TRIALS], result.monitor)
    print(f"{len(result.trials)} trials, best first")
    print_table("", trials.header, trials.rows, trials.text_columns)
    if not result.finalists:
        return
    rows = []
    for each in result.finalists:
        means = (each.validation, each.results.mean("auc"), each.results.mean("log_loss"))
        spread = each.results.standard_deviation("auc")
        rows.append((each.name, f"{means[0]:.5f}", f"{means[1]:.5f} ± {spread:.5f}", f"{means[2]:.5f}"))
    count = len(result.finalists[0].results.runs)
    print(f"means over {count} seeds, best first by {result.monitor}")
    print_table("", ("config", result.monitor, "test AUC", "test log loss"), rows)
    if result.diverged:
        print(f"left out, as it diverged with one of the seeds: {', '.join(result.diverged)}")
