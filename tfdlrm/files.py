"""Files: names that stay in their folder, texts with limits, files that are whole or not there, checksums, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

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


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A name to write to; the file gets its own name when the block ends well, and vanishes otherwise.

    Args:
        path: of the file; its folder exists.
        shared: other processes may write it at the same time: each has a name of its own. One that is killed leaves
            that; otherwise the next to write the file takes it over.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}" if shared else f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def try_lock(file: Path, *, mode: int = 0o666, on_wait: Callable[[], None] | None = None) -> TextIO | None:
    """Locks a file, which is made where it does not exist.

    Args:
        file: its folder exists.
        mode: of a file that is made.
        on_wait: where another process has the lock, this is called, and it is waited for.

    Returns:
        The open file, which holds the lock until it is closed; None where another process has it and `on_wait` is None.

    Raises:
        ValueError: a link, a pipe or a device stands in its place; nothing is followed or waited for.

    Example:
        >>> with try_lock(folder / ".lock") as held:  # None is refused before
        ...     write(folder)
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ValueError(f"{file}: a link or a device, where a lock belongs. Remove it.") from error
        raise
    stream = os.fdopen(descriptor, "w", encoding="utf-8")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise ValueError(f"{file}: a pipe or a device, where a lock belongs. Remove it.")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if on_wait is None:
            stream.close()
            return None
        on_wait()
        fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, hidden, to write what is then renamed to it; where it is not, it vanishes.

    A process that is killed leaves it. The next one that writes `target` removes it, and says so on stderr: it is known
    by its lock, which the system has let go of.

    Example:
        >>> with partial_folder(exports / "3") as partial:
        ...     write(partial)
        ...     appear(partial, exports / "3")
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    # locked before it has the name that others look for
    unnamed = partial.with_name(f"{partial.name}.new")
    shutil.rmtree(unnamed, ignore_errors=True)
    unnamed.mkdir()
    lock = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(partial)
        yield partial
    finally:
        for folder in (unnamed, partial):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def appear(partial: Path, target: Path) -> None:
    """Gives a folder its name, at once.

    Raises:
        FileExistsError: another process has written that one meanwhile.
    """
    try:
        partial.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(
                f"{target}: another process has written it meanwhile. Run the command again."
            ) from error
        raise


def _remove_left(target: Path) -> None:
    name = re.compile(rf"\.{re.escape(target.name)}\.(\d+)(\.new)?")
    for entry in sorted(target.parent.iterdir()):
        found = name.fullmatch(entry.name)
        if not found or (found.group(2) and _is_alive(int(found.group(1)))):
            continue  # a new one is not locked yet
        try:
            lock = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # no folder, or gone meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # somebody writes it
        else:
            shutil.rmtree(entry, ignore_errors=True)
            print(f"tfdlrm: removed {entry}, which a process that was killed had left half written", file=sys.stderr)
        finally:
            os.close(lock)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
