"""Files that anyone may have written: a name in one that becomes a path stays in its folder, its text has limits."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from tfdlrm.checks import quoted

MAX_TEXT_BYTES = 2**23
MAX_JSON_VALUES = 500_000  # each takes up to a hundred bytes
_LONGEST_NAME = 255  # bytes, of every file system in use


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a config, a manifest or a description, of at most `MAX_TEXT_BYTES`.

    Args:
        path: a regular file: a pipe might never end.

    Raises:
        FileNotFoundError, PermissionError: as of `open`.
        ValueError: it is larger, no regular file, or not UTF-8; names it.
    """
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError(f"{file}: is a folder, a device, a pipe or a socket. Give a file of text.")
    with file.open("rb") as stream:
        data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"{file}: has more than {MAX_TEXT_BYTES:,} bytes, the most that are read of such a text.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no UTF-8 text ({error}). Restore the file, or make it again.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a JSON file of at most `MAX_TEXT_BYTES` and, by its commas and brackets, `MAX_JSON_VALUES`.

    Raises:
        FileNotFoundError, PermissionError: as of `open`.
        ValueError: it is no JSON, or larger; names it.
    """
    text = read_text(path)
    try:
        # known before any of them takes memory
        if text.count(",") + text.count("[") + text.count("{") > MAX_JSON_VALUES:
            raise ValueError(f"more than {MAX_JSON_VALUES:,} values")
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is no JSON that can be read: too many lists in each other.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Restore the file, or make it again.") from error


def path_inside(folder: str | os.PathLike[str], name: object) -> Path:
    """The path of a name that a manifest, or any other file, has given.

    Args:
        folder: where it has to lie.
        name: of a file below the folder, there or not: parts joined by `/`, each a plain name.

    Raises:
        ValueError: the name, or a link that is there, leads out of the folder, or to a device, a pipe or a socket;
            names folder and name.

    Example:
        >>> path_inside("prepared", "train/part-00000.arrow")
        PosixPath('prepared/train/part-00000.arrow')
    """
    base = Path(folder)
    if not isinstance(name, str) or not is_name(name):
        raise ValueError(
            f"{base}: {quoted(name)} is no name of a file in it. Names are relative, without '..' and control "
            "characters."
        )
    path = base / name
    if not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(f"{path}: a link leads out of {base}. Put the file itself there.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: is a device, a pipe or a socket, and no file.")
    return path


def is_name(name: object) -> bool:
    """Whether it names a file below a folder: parts joined by `/`, each plain and printable, none of them `..`."""
    return isinstance(name, str) and all(map(_is_plain, name.split("/")))


def strange_entries(folder: str | os.PathLike[str]) -> list[str]:
    """What a folder holds beside files and folders, by lines: links out of it or to nothing, devices, pipes, sockets.

    Links to folders count as well: who follows them may never come back. Nothing is opened.
    """
    base = Path(folder)
    found = []
    for parent, folders, files in os.walk(base):
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            try:
                mode = path.lstat().st_mode
            except OSError:  # gone since it was listed
                continue
            shown = path.relative_to(base).as_posix()
            shown = shown if shown.isprintable() else quoted(shown)
            if stat.S_ISLNK(mode) and (path.is_dir() or not path.resolve().is_relative_to(base.resolve())):
                found.append(f"{shown} is a link to a folder, or out of this one")
            elif stat.S_ISLNK(mode) and not path.exists():
                found.append(f"{shown} is a link to nothing")
            elif not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found.append(f"{shown} is a device, a pipe or a socket, and no file")
    return found


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and part.isprintable()
        and "\\" not in part
        and len(os.fsencode(part)) <= _LONGEST_NAME
    )
