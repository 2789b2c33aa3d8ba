"""Names that come from a file, and become paths: each stays within its folder."""

from __future__ import annotations

import os
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
    if not isinstance(name, str) or not all(map(_is_plain, name.split("/"))):
        raise ValueError(
            f"{base}: {name!r} is no name of a file in it. Names are relative, without '..' and control characters."
        )
    path = base / name
    if not path.resolve().is_relative_to(base.resolve()):
        raise ValueError(f"{path}: a link leads out of {base}. Put the file itself there.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: is a device, a pipe or a socket, and no file.")
    return path


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and part.isprintable()
        and "\\" not in part
        and len(os.fsencode(part)) <= _LONGEST_NAME
    )
