"""`tfdlrm checkpoint`: what a run's checkpoints hold, and whether they are whole."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta
from typing import Any

_FLOAT_BYTES = 4


def add_command(commands: Any) -> None:
    """Adds `checkpoint`."""
    parser = commands.add_parser("checkpoint", help="what a run's checkpoints hold, and whether they are whole")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    inspect = actions.add_parser(
        "inspect",
        help="show a checkpoint's place in the run and its arrays",
        description="Show where in the run a checkpoint was written, by which versions, and every array it holds.",
    )
    verify = actions.add_parser(
        "verify",
        help="read every byte and compare it with what was written",
        description="Read every byte of the checkpoints and compare it with what was written. Exit code 1 where one is "
        "damaged.",
    )
    for action, default in ((inspect, "latest"), (verify, "all")):
        action.add_argument("model_dir", metavar="MODEL_DIR", help="the --model-dir of a training run")
        choices = "best|latest|NAME" if default == "latest" else "all|best|latest|NAME"
        action.add_argument("--checkpoint", default=default, metavar=choices, help=f"default: {default}")
    inspect.set_defaults(run=_inspect)
    verify.set_defaults(run=_verify)


def _inspect(arguments: argparse.Namespace) -> None:
    from tfdlrm.cli.tables import print_table
    from tfdlrm.training.model_dir import ModelDir

    directory = ModelDir(arguments.model_dir)
    checkpoints = directory.checkpoints()
    name = directory.checkpoint_name(arguments.checkpoint)
    shapes = checkpoints.shapes(name)
    state = checkpoints.read_state(name)
    print(f"{checkpoints.path(name)}")
    print(f"step {state.step}: epoch {state.epoch + 1}, batch {state.batch} of {state.batches_per_epoch}")
    if state.best is not None:
        print(f"best so far: epoch {state.best.epoch + 1}, {state.best.monitor} {state.best.value:.6f}")
    print(f"trained for {timedelta(seconds=round(state.elapsed_seconds))}")
    print("written by " + ", ".join(f"{package} {one}" for package, one in checkpoints.read_versions(name).items()))
    print("in the middle of an update: not to be resumed from" if not state.resumable else "can be resumed from")
    rows = [
        (array, " x ".join(f"{size:,}" for size in shape) or "1", f"{math.prod(shape) * _FLOAT_BYTES / 1e6:,.3f}")
        for array, shape in shapes.items()
    ]
    print_table(f"{len(rows)} arrays", ("array", "shape", "MB"), rows)


def _verify(arguments: argparse.Namespace) -> int:
    from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
    from tfdlrm.training.model_dir import ModelDir

    directory = ModelDir(arguments.model_dir)
    checkpoints = directory.checkpoints()
    chosen = arguments.checkpoint
    names = checkpoints.names() if chosen == "all" else [directory.checkpoint_name(chosen)]
    if not names:
        raise FileNotFoundError(f"{checkpoints.directory}: no checkpoint there. Give the --model-dir of a run.")
    code = 0
    for name in names:
        try:
            checkpoints.verify(name)
        except DamagedCheckpointError as error:
            print(f"{name}: damaged: {error}")
            code = 1
        else:
            print(f"{name}: whole")
    return code
