"""Names that come from a file, and become paths: each stays within its folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LONGEST_NAME = 255  # bytes, of every file system in use


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
            f"{base}: {name!r} is no name of a file in it. Names are relative, without '..' and control characters."
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
    """What a folder holds beside files and folders, each by a line: links that lead out of it, devices, pipes, sockets.

    Links to folders count as well: who follows them may never come back. Nothing is opened.
    """
    base = Path(folder)
    found = []
    for parent, folders, files in os.walk(base):
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            shown = path.relative_to(base).as_posix()
            shown = shown if shown.isprintable() else repr(shown)
            if stat.S_ISLNK(mode) and (path.is_dir() or not path.resolve().is_relative_to(base.resolve())):
                found.append(f"{shown} is a link to a folder, or out of this one")
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
