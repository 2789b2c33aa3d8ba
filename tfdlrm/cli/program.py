"""The program `tfdlrm`: finds its commands, parses flags, turns errors into one line and an exit code.

Exit codes: 0 done; 1 a check failed (`tfdlrm demo`) or a defect of the program, with its traceback; 2 usage, config
or data; 130 interrupted; 141 whoever read the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

import tfdlrm.cli.checkpoint
import tfdlrm.cli.cluster
import tfdlrm.cli.config
import tfdlrm.cli.data
import tfdlrm.cli.evaluate
import tfdlrm.cli.native
import tfdlrm.cli.predict
import tfdlrm.cli.report
import tfdlrm.cli.server
import tfdlrm.cli.train
import tfdlrm.cli.tune
from tfdlrm.cli.errors import is_expected, one_line
from tfdlrm.cli.quiet_start import import_tensorflow
from tfdlrm.stop_signals import ignore_stop_signals

COMMAND_GROUP = "tfdlrm.commands"
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

AddCommand = Callable[[Any], None]

DESCRIPTION = """\
Train, evaluate and use deep learning recommendation models (DLRM) on TensorFlow and Keras 3.

  tfdlrm demo                                    generated rows, from training to a served request
  tfdlrm train quickstart --model-dir runs/first
  tfdlrm evaluate runs/first
  tfdlrm report runs/first --html report.html
  tfdlrm predict runs/first --data rows.csv --output scores.csv
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the one form that all errors have."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"tfdlrm: error: {message}. See: {self.prog} --help\n")


def _named_commands() -> dict[str, AddCommand]:
    return {
        "train": tfdlrm.cli.train.add_command,
        "tune": tfdlrm.cli.tune.add_command,
        "evaluate": tfdlrm.cli.evaluate.add_command,
        "predict": tfdlrm.cli.predict.add_command,
        "report": tfdlrm.cli.report.add_command,
        "checkpoint": tfdlrm.cli.checkpoint.add_command,
        "config": tfdlrm.cli.config.add_command,
        "data": tfdlrm.cli.data.add_command,
        "native": tfdlrm.cli.native.add_command,
        "server": tfdlrm.cli.server.add_command,
        "cluster": tfdlrm.cli.cluster.add_command,
    }


def own_commands() -> list[AddCommand]:
    """The commands of tfdlrm itself."""
    return list(_named_commands().values())


def installed_commands() -> list[AddCommand]:
    """Commands of packages that build on tfdlrm, found by their entry points.

    tfdlrm does not import the packages above it (serving, pipelines), so they announce their commands themselves.
    """
    return [point.load() for point in sorted(entry_points(group=COMMAND_GROUP), key=lambda point: point.name)]


def commands_for(argv: Sequence[str]) -> list[AddCommand]:
    """All commands; only those of tfdlrm where one of them is called: other packages are not imported for it."""
    called = next((word for word in argv if not word.startswith("-")), None)
    return own_commands() if called in _named_commands() else [*own_commands(), *installed_commands()]


def build_parser(commands: Iterable[AddCommand]) -> argparse.ArgumentParser:
    """The parser of the whole program.

    Args:
        commands: functions that add a parser to what `add_subparsers` returns, and set `run`, a function from the
            parsed flags to an exit code (None for 0). TensorFlow is imported before that, quietly; a command that does
            without sets `needs_tensorflow=False`.
    """
    from tfdlrm import __version__

    parser = _Parser(prog="tfdlrm", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"tfdlrm {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_command in commands:
        add_command(subparsers)
    _add_debug(parser)
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug` at every level, so that it may stand anywhere."""
    # SUPPRESS: a sub-command's default must not undo what was given before it
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the whole traceback of an error"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _add_debug(command)


def run_program() -> NoReturn:
    """The process: one command, and its exit code, whatever signals still come while the interpreter finishes."""
    # without the line of source that raised it, which says nothing to whoever typed the command
    warnings.formatwarning = lambda message, *_, **__: f"tfdlrm: warning: {' '.join(str(message).split())}\n"
    code = main()
    ignore_stop_signals()
    strategy = sys.modules.get("tfdlrm.distribute.strategy")
    if strategy is not None and strategy.CONNECTED:
        # TensorFlow would tell every process of the cluster of the end, and complain at length of those that are gone
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None, commands: Iterable[AddCommand] | None = None) -> int:
    """Runs one command.

    Args:
        argv: flags; default `sys.argv[1:]`.
        commands: of the program; default its own and those of installed packages.

    Returns:
        The exit code.

    Example:
        >>> main(["config", "list"])
        0
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser(commands_for(argv) if commands is None else commands)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # --help, --version, wrong usage: all has been said
        return int(stop.code or 0)
    try:
        if getattr(arguments, "needs_tensorflow", True):
            import_tensorflow()
        code = arguments.run(arguments)
        sys.stdout.flush()  # a reader that has gone away shows here and not at the interpreter's exit
        return code or 0
    except KeyboardInterrupt:
        print("tfdlrm: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # what is still buffered has nowhere to go, and the interpreter would complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if getattr(arguments, "debug", False) or not is_expected(error):
            raise
        print(f"tfdlrm: error: {one_line(error)}", file=sys.stderr)
        return EXIT_USAGE
