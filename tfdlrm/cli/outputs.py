"""Files that a command is to write: looked at before minutes of work, and not after."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def check_outputs(arguments: argparse.Namespace, *, files: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Refuses what could not be written, and asks for what pages and plots need.

    Args:
        arguments: of the command.
        files, folders: names of its flags, whose values are None where they are not given.

    Raises:
        FileNotFoundError, IsADirectoryError, NotADirectoryError: names flag and path.
        ImportError: names the extra.
    """
    for flag in (*files, *folders):
        path = getattr(arguments, flag)
        if path is None:
            continue
        if flag in files and Path(path).is_dir():
            raise IsADirectoryError(f"--{flag} {path}: a folder. Give the name of a file.")
        if flag in folders and Path(path).exists() and not Path(path).is_dir():
            raise NotADirectoryError(f"--{flag} {path}: a file. Give the name of a folder.")
        if not Path(path).parent.is_dir():
            raise FileNotFoundError(f"--{flag} {path}: there is no folder {Path(path).parent}. Make it first.")
    if any(getattr(arguments, flag, None) is not None for flag in ("html", "png")):
        import tfdlrm.pages.html
        import tfdlrm.pages.matplotlib_extra  # noqa: F401 - they say what to install


def write_json(path: str, value: Any) -> None:
    """Writes a value whose numbers are all finite."""
    Path(path).write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
