"""`tfdlrm native`: building the native kernels ahead of time, and what became of them."""

from __future__ import annotations

import argparse
import os
from typing import Any


def add_command(commands: Any) -> None:
    """Adds `native` with its sub-commands `build` and `show`."""
    parser = commands.add_parser(
        "native",
        help="build the native kernels, or show where they are",
        description="The kernels are built on first use; build them ahead of time for an image or a read-only machine.",
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = parts.add_parser("build", help="build and load the kernels for this TensorFlow, compiler and processor")
    build.add_argument("--cache", metavar="DIR", help="where to; default: TFDLRM_NATIVE_CACHE, else the user's cache")
    build.set_defaults(run=_build)
    parts.add_parser("show", help="setting, place and state").set_defaults(run=_show)


def _build(arguments: argparse.Namespace) -> int:
    from tfdlrm.native import loader, plain

    if arguments.cache:
        os.environ[loader.CACHE_SETTING] = arguments.cache
    print(loader.build_and_load())
    print(plain.ensure_built())
    return 0


def _show(arguments: argparse.Namespace) -> None:
    del arguments
    from tfdlrm.native import build, cache, loader

    path = loader.library_path()
    print(f"{loader.SETTING}  {os.environ.get(loader.SETTING, 'auto')}")
    print(f"compiler       {build.compiler() or 'none found'}")
    print(f"library        {path}")
    print(f"built          {'yes' if cache.is_whole(path) else 'no, it is built on first use'}")
