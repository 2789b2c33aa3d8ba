"""Version folders on disk: which are there, and which are whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_VERSION = re.compile(r"[0-9]{1,18}")  # fits int64
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")

Fingerprint = tuple[tuple[str, int, int], ...]


def version_folders(base: Path) -> Mapping[int, Path]:
    """Numbered folders below `base`; hidden and other names are not versions. Empty where `base` cannot be read.

    Of two names of one number (`7` and `007`) the shorter counts.
    """
    found: dict[int, Path] = {}
    try:
        entries = sorted(base.iterdir(), key=lambda entry: -len(entry.name))
    except OSError:
        return found
    for entry in entries:
        if _VERSION.fullmatch(entry.name) and entry.is_dir():
            found[int(entry.name)] = entry
    return found


def missing_parts(folder: Path) -> list[str]:
    """Files that a SavedModel needs and this folder does not have (yet); empty for a whole one.

    Example:
        >>> missing_parts(Path("exports/clicks/7"))
        ['saved_model.pb']
    """
    missing = []
    if not any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        missing.append("saved_model.pb")
    if not (folder / "variables" / "variables.index").is_file():
        missing.append("variables/variables.index")
    return missing + _missing_shards(folder / "variables")


def _missing_shards(variables: Path) -> list[str]:
    try:
        names = {entry.name for entry in variables.iterdir()}
    except OSError:
        return []
    shards = [found for name in names if (found := _SHARD.fullmatch(name))]
    if not shards:
        return ["variables/variables.data-*"]
    num_shards = max(int(found.group(2)) for found in shards)
    expected = {f"variables.data-{index:05d}-of-{num_shards:05d}" for index in range(num_shards)}
    return [f"variables/{name}" for name in sorted(expected - names)]


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of the files: another one means that it is worth loading a broken version again."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # gone since it was listed
            continue
        found.append((path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
