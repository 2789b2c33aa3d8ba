"""`tfdlrm data`: raw rows to prepared ones, synthetic rows, and what a dataset holds."""

from __future__ import annotations

from typing import Any

import tfdlrm.cli.data_inspect
import tfdlrm.cli.data_prepare
import tfdlrm.cli.data_schema
import tfdlrm.cli.data_synth
import tfdlrm.cli.data_trace


def add_command(commands: Any) -> None:
    """Adds `data` with its sub-commands."""
    parser = commands.add_parser(
        "data",
        help="propose a schema, prepare raw rows, make synthetic ones, look into a dataset",
        description="Rows before training: propose a schema, prepare raw files once, make synthetic ones, look into "
        "either.",
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    tfdlrm.cli.data_schema.add_command(parts)
    tfdlrm.cli.data_prepare.add_command(parts)
    tfdlrm.cli.data_synth.add_command(parts)
    tfdlrm.cli.data_trace.add_command(parts)
    tfdlrm.cli.data_inspect.add_command(parts)
