"""The command that this package adds to the program `tfdlrm`, announced by an entry point in setup.cfg."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfdlrm.cli.config import add_overrides

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig

EXIT_NOT_PUSHED = 1


def add_pipeline(commands: Any) -> None:
    """Adds `pipeline`."""
    pipeline = commands.add_parser("pipeline", help="run a TFX pipeline, and show what came of it")
    parts = pipeline.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = parts.add_parser(
        "run",
        help="from CSV files to a pushed model",
        description="Run the pipeline of a config on this machine. What an earlier run made of the same inputs is "
        "taken over. Exit code 1: every component did its work, and the model was not good enough to be pushed.",
    )
    _add_config(run)
    run.add_argument("--no-cache", action="store_true", help="do everything again")
    run.add_argument("--quiet", action="store_true", help="no progress, only the result")
    run.set_defaults(run=_run)
    show = parts.add_parser(
        "show",
        help="runs, executions and artifacts, and what the pushed model was made of",
        description="Print the runs of a pipeline, the executions and artifacts of one of them, and what its model was "
        "made of, and that which was pushed last.",
    )
    _add_config(show)
    show.add_argument("--run", dest="number", metavar="N", type=int, help="of the table of runs; default: the last")
    show.set_defaults(run=_show)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, as pipelines/config.yaml")
    parser.add_argument("--data", metavar="DIR", help="the rows; default: data of the config")
    parser.add_argument("--root", metavar="DIR", help="where everything goes; default: root of the config")
    add_overrides(parser)


def _config(arguments: argparse.Namespace) -> PipelineConfig:
    from pipelines.config import PipelineConfig
    from tfdlrm.config import apply_overrides

    given = {name: value for name in ("data", "root") if (value := getattr(arguments, name)) is not None}
    return apply_overrides(replace(PipelineConfig.load(arguments.config), **given), arguments.overrides)


def _run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)  # what is wrong there is said before TFX is imported
    from pipelines.pipeline import create_pipeline
    from pipelines.run_local import run_local

    result = run_local(create_pipeline(config, cache=not arguments.no_cache), show=not arguments.quiet)
    print(result)
    return EXIT_NOT_PUSHED if result.pushed is None else 0


def _show(arguments: argparse.Namespace) -> None:
    from pipelines.lineage import Store, lineage
    from tfdlrm.cli.tables import print_table

    store = Store(_config(arguments).store)
    runs = store.runs()
    print_table(
        "runs",
        ("run", "began (UTC)", "executions", "cached", "ended"),
        [
            (
                str(number),
                f"{run.began:%Y-%m-%d %H:%M:%S}",
                str(len(run.executions)),
                str(sum(each.state == "CACHED" for each in run.executions)),
                run.state,
            )
            for number, run in enumerate(runs, 1)
        ],
        text_columns=(1, 4),
    )
    number = len(runs) if arguments.number is None else arguments.number
    if not 1 <= number <= len(runs):
        raise ValueError(f"--run {number}: there are {len(runs)} runs. Give a number of the table.")
    run = runs[number - 1]
    print_table(
        f"run {number}: executions",
        ("execution", "component", "state", "seconds"),
        [(str(each.id), each.component, each.state.lower(), f"{each.seconds:.1f}") for each in run.executions],
        text_columns=(1, 2),
    )
    print_table(
        f"run {number}: artifacts",
        ("artifact", "of", "folder"),
        [
            (str(artifact.id), f"{each.component}.{key}", artifact.uri)
            for each in run.executions
            for key, artifacts in each.outputs.items()
            for artifact in artifacts
        ],
        text_columns=(1, 2),
    )
    last_pushed = max((number for number, each in enumerate(runs, 1) if each.state == "pushed"), default=number)
    for shown in dict.fromkeys((number, last_pushed)):
        if runs[shown - 1].model is not None:
            title = f"run {shown}: lineage of the model"
            print_table(title, ("", ""), lineage(store, runs[shown - 1]).items(), text_columns=(0, 1))
