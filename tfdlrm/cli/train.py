"""`tfdlrm train`: a config, perhaps changed by flags, to a trained model in a folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted
from tfdlrm.cli.config import add_overrides

if TYPE_CHECKING:
    from tfdlrm.config import ExperimentConfig
    from tfdlrm.training.seeds import SeedResults

CLUSTER_RUN = "TFDLRM_CLUSTER_RUN"
"""The flags of the `tfdlrm cluster run` that this process belongs to."""
RUNS = "runs"  # where models go that nobody gave a folder, by the name of their preset
SIGNAL_EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}  # 128 + the signal's number, as a shell reports it


def add_command(commands: Any) -> None:
    """Adds `train`."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model by a config. Ctrl-C and SIGTERM write a checkpoint; --resume goes on from it.",
    )
    add_config(parser)
    parser.add_argument("--model-dir", metavar="DIR", help=f"where everything goes; default: {RUNS}/<preset>")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --model-dir")
    parser.add_argument(
        "--seeds",
        type=parse_seeds,
        metavar="0,1,2",
        help="train once a seed, in folders of their own, and print the test metrics of each and their mean",
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="bit-identical runs and resumption, at some cost in speed"
    )
    where = parser.add_argument_group("several processes (docs/parameter_servers.md)")
    where.add_argument(
        "--cluster", metavar="FILE", help="train over the processes of a cluster; YAML, see: tfdlrm server"
    )
    where.add_argument(
        "--parameter-servers", action="store_true", help="train over the processes of the cluster that TF_CONFIG has"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parser.set_defaults(run=_run, needs_tensorflow=False)  # imported once it is clear that this process stays


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds CONFIG, `--data`, `--set` and `--bad-rows`: what `config_of` reads."""
    parser.add_argument(
        "config",
        metavar="CONFIG|PRESET",
        nargs="?",
        help="a YAML file, or a preset (see: tfdlrm config list); with --resume, default: that of the run",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the rows: a prepared folder, or a file whose format is told by its name and first bytes (or by --set "
        "data.format=); default: data.path of the config",
    )
    add_overrides(parser)
    add_bad_rows(parser)


def add_bad_rows(parser: argparse.ArgumentParser) -> None:
    """Adds `--bad-rows`."""
    parser.add_argument(
        "--bad-rows",
        choices=("error", "quarantine"),
        help="stop at the first bad row, or set bad rows aside and count them; default: train.bad_rows of the config",
    )


def parse_seeds(text: str) -> list[int]:
    """Seeds from `0,1,2`.

    Raises:
        argparse.ArgumentTypeError: not a list of numbers.
    """
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not a list of seeds. Write it as 0,1,2") from error


def _run(arguments: argparse.Namespace) -> int | None:
    from tfdlrm.cli.quiet_start import import_tensorflow

    if arguments.cluster is not None and arguments.parameter_servers and CLUSTER_RUN not in os.environ:
        raise ValueError("--cluster and --parameter-servers name two clusters, a file's and TF_CONFIG's. Give one.")
    config, model_dir = config_of(arguments), _model_dir(arguments)
    if config.train.strategy == "parameter_server":
        _listen_at_one_address(arguments)
    import_tensorflow()
    from tfdlrm.cli.tables import print_metrics
    from tfdlrm.distribute.strategy import strategy_of
    from tfdlrm.training.run import train

    if not arguments.resume:
        _refuse_other_files(model_dir)
    verbose = 0 if arguments.quiet else 1
    strategy = strategy_of(config.train, arguments.cluster)
    if arguments.seeds is not None:
        from tfdlrm.training.seeds import train_seeds

        results = train_seeds(
            config, model_dir, arguments.seeds, resume=arguments.resume, strategy=strategy, verbose=verbose
        )
        _print_seeds(results)
        return _exit_code(results.interrupted_by, arguments, model_dir)
    result = train(config, model_dir, resume=arguments.resume, strategy=strategy, verbose=verbose)
    print(result.books)
    if result.best is not None:
        print(f"best: epoch {result.best['epoch'] + 1}, {result.best['monitor']} {result.best['value']:.6f}")
    if result.test is not None:
        print_metrics("test part", result.test)
    print(f"model: {model_dir}")
    return _exit_code(result.interrupted_by, arguments, model_dir)


def _listen_at_one_address(arguments: argparse.Namespace) -> None:
    """The coordinator has a server as well: starts this process again with the rule for its socket, if it has not."""
    from tfdlrm.distribute import binding
    from tfdlrm.distribute.cluster import Cluster

    Cluster.load(arguments.cluster)  # what is wrong with it is said before
    is_program = Path(sys.argv[0]).name in ("tfdlrm", "__main__.py")
    if is_program and not binding.is_preloaded():
        with contextlib.suppress(OSError):  # it cannot be built here, which is said where it counts
            binding.start_again(binding.preloading())


def config_of(arguments: argparse.Namespace) -> ExperimentConfig:
    """The config that a command's flags make: a preset, a file, or that of the run that goes on."""
    from tfdlrm.config import ANY_DATA, apply_overrides, load_config

    config = _config_of_run(arguments) if arguments.config is None else load_config(arguments.config)
    flags = []
    if arguments.data is not None:
        # absolute: the run's own config must find the rows from anywhere
        path = os.path.abspath(arguments.data)
        if any(override.partition("=")[0].strip() == "data.format" for override in arguments.overrides):
            flags.append(f"data.path={json.dumps(path)}")
        else:
            from tfdlrm.data.raw_formats import data_at

            config = replace(config, data=data_at(config.data, path))
    elif arguments.resume and arguments.config is not None and config.data.path is None and _has_run(arguments):
        config = replace(config, data=_config_of_run(arguments).data)  # a preset for any data
    elif config.data.format == "movielens" and config.data.path is None:
        flags.append(f"data.path={json.dumps(str(_movielens()))}")
    if arguments.config in ANY_DATA:
        config = _sized(config, arguments.quiet)
    if arguments.bad_rows is not None:
        flags.append(f"train.bad_rows={arguments.bad_rows}")
    if arguments.deterministic:
        flags.append("train.deterministic=true")
    if _over_a_cluster(arguments):
        flags.append("train.strategy=parameter_server")
    config = apply_overrides(config, [*flags, *arguments.overrides])
    if _over_a_cluster(arguments) and config.train.strategy != "parameter_server":
        raise ValueError(
            f"train.strategy={quoted(config.train.strategy)} trains in one process, and a cluster "
            "is given. Drop one of them."
        )
    return config


def _sized(config: ExperimentConfig, quiet: bool) -> ExperimentConfig:
    """With the sizes that go by the number of rows, which are said."""
    from tfdlrm.config import sized
    from tfdlrm.data.inspect.label_rates import count_training_rows

    rows = count_training_rows(config.data)
    if rows is None:
        return config
    config = sized(config, rows)
    train, widths = config.train, "-".join(map(str, config.model.top_mlp))
    if not quiet:
        print(
            f"for {rows:,} training rows: global_batch_size={train.global_batch_size}, epochs={train.epochs}, "
            f"top_mlp={widths} (change any with --set)"
        )
    return config


def _config_of_run(arguments: argparse.Namespace) -> ExperimentConfig:
    if arguments.seeds is not None:
        raise ValueError("CONFIG is missing, and --seeds are several runs: give it, as when they began.")
    if arguments.model_dir is None or not arguments.resume:
        raise ValueError(
            "CONFIG is missing. Give a YAML file or a preset (see: tfdlrm config list); a run goes on by --resume "
            "--model-dir DIR alone."
        )
    from tfdlrm.cli.quiet_start import import_tensorflow

    import_tensorflow()
    from tfdlrm.training.model_dir import ModelDir

    return ModelDir(arguments.model_dir).load_config()


def _has_run(arguments: argparse.Namespace) -> bool:
    from tfdlrm.training.model_dir import ModelDir

    is_one = arguments.seeds is None and arguments.model_dir is not None
    return is_one and ModelDir(arguments.model_dir).config_file.is_file()


def _over_a_cluster(arguments: argparse.Namespace) -> bool:
    return arguments.cluster is not None or arguments.parameter_servers


def _movielens() -> Path:
    from tfdlrm.data.movielens_download import fetch_movielens

    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return fetch_movielens(os.environ.get("TFDLRM_MOVIELENS_DIR") or os.path.join(cache, "tfdlrm", "movielens-100k"))


def _model_dir(arguments: argparse.Namespace) -> Path:
    from tfdlrm.config import preset_names

    if arguments.model_dir is not None:
        return Path(arguments.model_dir)
    if arguments.config in preset_names():
        return Path(RUNS, arguments.config)
    raise ValueError(
        f"--model-dir is missing, and {quoted(arguments.config)} is a file. Give a folder, such as {RUNS}/first."
    )


def _refuse_other_files(folder: Path) -> None:
    """A run writes a config.yaml, a logs/ and more, and there may be others of these names."""
    from tfdlrm.training.model_dir import LOCK_FILE

    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if names and not any(name == LOCK_FILE or name.startswith("seed-") for name in names):
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise FileExistsError(f"{folder}: holds files and no run: {some}. Give another --model-dir, or empty it.")


def _print_seeds(results: SeedResults) -> None:
    from tfdlrm.cli.tables import print_table

    if not results.runs:
        return
    header = ("seed", "epoch", results.monitor, "test AUC", "test log loss")
    rows = [
        (str(run.seed), str(run.best_epoch), *_digits(run.validation, run.test["auc"], run.test["log_loss"]))
        for run in results.runs
    ]
    rows.append(("mean", "", "", *_digits(results.mean("auc"), results.mean("log_loss"))))
    spread = _digits(results.standard_deviation("auc"), results.standard_deviation("log_loss"))
    rows.append(("standard deviation", "", "", *spread))
    print_table(f"{len(results.runs)} seeds", header, rows)


def _digits(*values: float) -> list[str]:
    return [f"{value:.5f}" for value in values]


def _exit_code(interrupted_by: str | None, arguments: argparse.Namespace, model_dir: Path) -> int | None:
    if interrupted_by is None:
        return None
    run, where = "tfdlrm train", ""
    if CLUSTER_RUN in os.environ:
        run = f"tfdlrm cluster run {os.environ[CLUSTER_RUN]} -- train"
    elif arguments.cluster is not None:
        where = f" --cluster {shlex.quote(arguments.cluster)}"
    elif arguments.parameter_servers:
        where = " --parameter-servers"
    flags = []
    if arguments.seeds is not None:  # several runs; one has all that follows in its own config
        flags += [arguments.config, "--seeds", ",".join(map(str, arguments.seeds))]
        if arguments.data is not None:
            flags += ["--data", arguments.data]
        for override in arguments.overrides:
            flags += ["--set", override]
        if arguments.bad_rows is not None:
            flags += ["--bad-rows", arguments.bad_rows]
        flags += ["--deterministic"] if arguments.deterministic else []
    flags += ["--model-dir", str(model_dir)]
    print(f"stopped by {interrupted_by}; go on with: {run} {shlex.join(flags)}{where} --resume")
    return SIGNAL_EXIT_CODES[interrupted_by]
