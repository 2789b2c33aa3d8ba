"""`tfdlrm cluster run`: training over processes of this machine, to try what several machines would do."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from typing import Any

from tfdlrm.checks import quoted
from tfdlrm.cli.train import CLUSTER_RUN

TRAIN = "train"


def add_command(commands: Any) -> None:
    """Adds `cluster`."""
    parser = commands.add_parser("cluster", help="a whole cluster on this machine")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = actions.add_parser(
        "run",
        help="start workers and parameter servers, train over them, and end them",
        description="Start workers and parameter servers as processes of this machine, run `tfdlrm train` over them, "
        "and end them, whatever ends the training. Their output is shown behind their names.",
        epilog="example: tfdlrm cluster run --workers 2 --parameter-servers 2 -- train quickstart",
    )
    run.add_argument("--workers", type=int, default=1, metavar="N", help="processes that compute (default: 1)")
    run.add_argument(
        "--parameter-servers", type=int, default=1, metavar="N", help="processes that hold the tables (default: 1)"
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- train ...", help="`train` and its flags")
    run.set_defaults(run=_run, needs_tensorflow=False)


def _run(arguments: argparse.Namespace) -> int:
    from tfdlrm.distribute.local_cluster import LocalCluster
    from tfdlrm.stop_signals import StopSignals

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ValueError("cluster run: there is no command. Write: cluster run ... -- train CONFIG.")
    if command[0] != TRAIN:
        raise ValueError(
            f"cluster run: {quoted(command[0])} cannot be run over a cluster. Write: cluster run ... -- train CONFIG."
        )
    for flag in ("--cluster", "--parameter-servers"):
        if any(word.partition("=")[0] == flag for word in command):
            raise ValueError(
                f"cluster run: {flag} behind -- names another cluster than the one that is started. Drop it."
            )
    training: list[subprocess.Popen[bytes]] = []

    def hand_on(name: str) -> None:
        for process in training:
            process.send_signal(signal.Signals[name])

    with StopSignals(hand_on, second_acts_at_once=False) as signals:
        local = LocalCluster(arguments.workers, arguments.parameter_servers)
        with local:
            if signals.received is None:
                program = [sys.executable, "-m", "tfdlrm", *command, "--cluster", str(local.file)]
                # not in the terminal's foreground: of a Ctrl-C it hears once, from here
                flags = f"--workers {arguments.workers} --parameter-servers {arguments.parameter_servers}"
                environment = {**os.environ, CLUSTER_RUN: flags}
                training.append(subprocess.Popen(program, env=environment, start_new_session=True))
                if signals.received is not None:
                    hand_on(signals.received)
            code = training[0].wait() if training else -signal.Signals[signals.received or "SIGTERM"]
    return code if code >= 0 else 128 - code  # as a shell reports a signal
