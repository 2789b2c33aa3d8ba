"""One checkpoint as one folder that is there whole or not at all.

Files are written into a hidden folder beside their place and forced to disk; then the folder is renamed. Its
`manifest.json` lists every file with its size and, but for the tables' data, whose chunks carry a CRC that
TensorFlow checks, its SHA-256.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfdlrm.checks import quoted
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.files import path_inside, read_json, sha256_of

MANIFEST_FILE = "manifest.json"
PARTIAL_PREFIX = ".partial-"
REPLACED_PREFIX = ".replaced-"
_FORMAT = 1


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Makes `target` with what `write` puts into the folder it is given; one of that name is replaced.

    Raises:
        OSError: the disk is full or read-only, or the parent is gone. Nothing is left behind, and what stood at
            `target` still does.
    """
    partial = target.with_name(f"{PARTIAL_PREFIX}{target.name}-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        write(partial)
        (partial / MANIFEST_FILE).write_text(json.dumps(_manifest(partial), indent=1), encoding="utf-8")
        for file in partial.iterdir():
            _sync(file)
        _sync(partial)
        replaced = target.with_name(REPLACED_PREFIX + target.name)
        if target.exists():
            # killed between the two renames, `tidy` puts it back
            target.rename(replaced)
        partial.rename(target)
        _sync(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_folder(folder: Path) -> None:
    """Removes a checkpoint; one that is killed meanwhile has left none that lacks files."""
    hidden = folder.with_name(f"{PARTIAL_PREFIX}{folder.name}-{os.getpid()}")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def write_file(file: Path, text: str) -> None:
    """Replaces a small file at once: readers see the old text or the new."""
    partial = file.with_name(f"{PARTIAL_PREFIX}{file.name}-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        partial.replace(file)
        _sync(file.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def verify_folder(folder: Path) -> None:
    """Compares the files with the manifest. Reads all but the tables' data, of which it compares the sizes.

    Raises:
        DamagedCheckpointError: a file is missing, truncated or changed; names it.
    """
    manifest = _read_manifest(folder)
    for name, expected in manifest["files"].items():
        try:
            file = path_inside(folder, name)
        except ValueError as error:
            raise DamagedCheckpointError(f"{folder / MANIFEST_FILE}: {error}") from error
        if not file.is_file():
            raise DamagedCheckpointError(f"{file}: the file is missing.")
        size = file.stat().st_size
        written = expected.get("bytes") if isinstance(expected, dict) else expected
        if not isinstance(expected, dict) or size != written:
            raise DamagedCheckpointError(f"{file}: {size} bytes, {quoted(written)} were written.")
        if "sha256" in expected and sha256_of(file) != expected["sha256"]:
            raise DamagedCheckpointError(f"{file}: its content is not what was written.")


def tidy(parent: Path) -> None:
    """Removes what a killed process left half written or half removed, and puts back what it was about to replace.

    Only for the one process that writes there. Each is told of on stderr.
    """
    for left in sorted(parent.glob(f"{REPLACED_PREFIX}*")):
        target = parent / left.name.removeprefix(REPLACED_PREFIX)
        if target.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(target)
            print(f"tfdlrm: put back {target}, which a process that was killed was about to replace", file=sys.stderr)
    for left in sorted(parent.glob(f"{PARTIAL_PREFIX}*")):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        print(f"tfdlrm: removed {left}, which a process that was killed had left", file=sys.stderr)


def _manifest(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        files[file.name] = {"bytes": file.stat().st_size}
        if ".data-" not in file.name:
            files[file.name]["sha256"] = sha256_of(file)
    return {"format": _FORMAT, "files": files}


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST_FILE
    try:
        manifest = read_json(file)
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{file}: cannot be read ({error})") from error
    if manifest.get("format") != _FORMAT or not isinstance(files, dict):
        raise DamagedCheckpointError(
            f"{file}: format {quoted(manifest.get('format'))} is not {_FORMAT}. Use the tfdlrm that wrote it."
        )
    return manifest


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
