"""Locks of folders that one process at a time may write; the system lets go of them when the process dies, however."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


def try_lock(file: Path) -> TextIO | None:
    """Locks a file, which is made where it does not exist.

    Returns:
        The open file, which holds the lock until it is closed; None where another process has it.

    Raises:
        ValueError: a link, a pipe or a device stands in its place; nothing is followed or waited for.

    Example:
        >>> with try_lock(folder / ".lock") as held:  # None is refused before
        ...     write(folder)
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
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
        stream.close()
        return None
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
