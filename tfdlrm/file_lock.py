"""Locks of folders that one process at a time may write; the system lets go of them when the process dies, however."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO


def try_lock(file: Path) -> TextIO | None:
    """Locks a file, which is made where it does not exist.

    Returns:
        The open file, which holds the lock until it is closed; None where another process has it.

    Example:
        >>> with try_lock(folder / ".lock") as held:  # None is refused before
        ...     write(folder)
    """
    stream = file.open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
