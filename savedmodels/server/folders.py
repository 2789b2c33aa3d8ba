"""Version folders on disk: which are there, and which are whole."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from savedmodels.graph_ops import read_saved_model
from savedmodels.versions import number_of
from tfdlrm.checks import shortened
from tfdlrm.files import strange_entries

_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable", "AutoReloadVariable", "TemporaryVariable"})
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")

Fingerprint = tuple[tuple[str, int, int], ...]


def version_folders(base: Path) -> Mapping[int, Path]:
    """Numbered folders below `base`; hidden names, and others that are no int64, are not versions. Empty where `base`
    cannot be read.

    Of two names of one number (`7` and `007`) the shorter counts.
    """
    found: dict[int, Path] = {}
    try:
        entries = sorted(base.iterdir(), key=lambda entry: -len(entry.name))
    except OSError:
        return found
    for entry in entries:
        if (number := number_of(entry.name)) is not None and entry.is_dir():
            found[number] = entry
    return found


def missing_parts(folder: Path) -> list[str]:
    """Files that a SavedModel needs and this folder does not have (yet); empty for a whole one.

    A graph without variables (a frozen one) needs no files of variables.

    Example:
        >>> missing_parts(Path("exports/clicks/7"))
        ['saved_model.pb']
    """
    missing = []
    if not any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        missing.append("saved_model.pb")
    if not (folder / "variables" / "variables.index").is_file():
        if not missing and not _has_variables(folder):
            return []
        missing.append("variables/variables.index")
    return missing + _missing_shards(folder / "variables")


def _has_variables(folder: Path) -> bool:
    """Whether a version's graph has variables, or cannot be read (yet)."""
    for path in (folder / "saved_model.pb", folder / "saved_model.pbtxt"):
        with contextlib.suppress(OSError):
            status = path.stat()
            return _graph_has_variables(folder, status.st_size, status.st_mtime_ns)
    return True


@functools.lru_cache(maxsize=64)  # asked at every look at the folders
def _graph_has_variables(folder: Path, num_bytes: int, written: int) -> bool:
    try:
        graphs = [meta_graph.graph_def for meta_graph in read_saved_model(folder).meta_graphs]
    except (OSError, ValueError):
        return True
    nodes = (nodes for graph in graphs for nodes in (graph.node, *(each.node_def for each in graph.library.function)))
    return any(node.op in _VARIABLE_OPS for each in nodes for node in each)


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


_MAX_PROTO_BYTES = 2**31 - 1


def refuse_files(folder: Path, max_bytes: int | None) -> None:
    """Refuses a version before anything of it is read: what is no file could be waited for without an end.

    Args:
        folder: of the version.
        max_bytes: of all files; None for the machine's memory.

    Raises:
        ValueError: something in it is neither a file nor a folder, or a link to a folder, out of the version or to
            nothing; or it is too large; names it and the fix.
    """
    if strange := strange_entries(folder):
        raise ValueError(f"{shortened(strange[0])}. Put the file there.")
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if max_bytes is None else max_bytes
    total = 0
    for path in sorted(folder.rglob("*")):
        try:
            mode, size = path.stat().st_mode, path.stat().st_size
        except OSError:  # gone since it was listed
            continue
        if stat.S_ISREG(mode):
            if path.parent == folder and path.name == "saved_model.pb" and size > _MAX_PROTO_BYTES:
                raise ValueError(
                    f"its saved_model.pb has {size:,} bytes, and no protobuf has more than {_MAX_PROTO_BYTES:,}. "
                    "Export the model again."
                )
            total += size
    if total > limit:
        raise ValueError(f"its files have {total:,} bytes, and {limit:,} are allowed. Raise --max-version-bytes.")


def fingerprint(folder: Path) -> Fingerprint:
    """Names, sizes and times of the files: another one means that it is worth loading a broken version again."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except OSError:  # gone since it was listed
            continue
        found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(found)
