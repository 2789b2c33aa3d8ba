"""`tfdlrm config`: presets, and what a config comes to."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_command(commands: Any) -> None:
    """Adds `config` with its sub-commands `show` and `list`."""
    parser = commands.add_parser("config", help="show a config as YAML, or list the presets")
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = parts.add_parser("show", help="print a config as YAML, every default written out")
    show.add_argument("config", metavar="FILE|PRESET", help="a YAML file, or the name of a preset")
    add_overrides(show)
    show.set_defaults(run=_show, needs_tensorflow=False)
    parts.add_parser("list", help="list the presets").set_defaults(run=_list, needs_tensorflow=False)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set a key of the config, as in train.epochs=2 or model.top_mlp=[64,1]; may be repeated",
    )


def _show(arguments: argparse.Namespace) -> None:
    from tfdlrm.config import apply_overrides, load_config

    sys.stdout.write(apply_overrides(load_config(arguments.config), arguments.overrides).to_yaml())


def _list(arguments: argparse.Namespace) -> None:
    del arguments
    from tfdlrm.config import preset_names

    print("\n".join(preset_names()))
