"""What was compiled, kept for the next process: in folders and files that nobody but this user could have written."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tfdlrm.files import sha256_of, try_lock

CACHE_SETTING = "TFDLRM_NATIVE_CACHE"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class StrangeCacheError(OSError):
    """The cache, or something in it, belongs to another user: it is not loaded. Says what, and what to do."""


def cache_dir() -> Path:
    """Where things are kept: `$TFDLRM_NATIVE_CACHE`, else `tfdlrm/native` in the user's cache folder.

    A user without a home has a folder of their own in that of temporary files.
    """
    named = os.environ.get(CACHE_SETTING)
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and the system does not know the user, as in a container
        home = Path()
    base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if not base.is_absolute():
        return Path(tempfile.gettempdir()) / f"tfdlrm-{os.geteuid()}" / "native"
    return base / "tfdlrm" / "native"


def built_once(path: Path, make: Callable[[Path], None], note: str = "") -> Path:
    """The file, made unless the cache has it whole; of several processes one makes it.

    Args:
        path: `cache_dir() / key / name`; the key stands for all that it is made from.
        make: writes it, to a path with the same name in a folder for nothing else.
        note: told on stderr while it is made.

    Raises:
        StrangeCacheError: the folder belongs to another user.
        OSError: it cannot be written.
        Exception: that of `make`.

    Example:
        >>> built_once(cache_dir() / "plain-0f3a" / "library.so", compile_to)
    """
    _own_folder(path.parent.parent)
    _own_folder(path.parent)
    if not is_whole(path):
        waiting = "tfdlrm: another process is building the native kernels; waiting for it ..."
        try:
            lock = try_lock(path.parent / "lock", mode=0o600, on_wait=lambda: _say(waiting))
        except ValueError as error:
            raise StrangeCacheError(str(error)) from error
        assert lock is not None  # it was waited for
        with lock:
            if not is_whole(path):
                start = time.perf_counter()
                if note:
                    _say(f"tfdlrm: {note} ...")
                _make(path, make)
                if note:
                    _say(f"tfdlrm: built in {time.perf_counter() - start:.0f} s")
    return path


def is_whole(path: Path) -> bool:
    """Whether the file is there as it was made, by this user or root. Loading half of one would end the process."""
    try:
        is_ours = all(_is_ours(file.lstat()) for file in (path, _digest_file(path)))
        return is_ours and _digest_file(path).read_text(encoding="ascii") == sha256_of(path)
    except (OSError, UnicodeDecodeError):
        return False


def _make(path: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        made = Path(folder) / path.name
        make(made)
        made.chmod(0o755)  # whatever the umask
        digest = Path(folder) / "digest"
        digest.write_text(sha256_of(made), encoding="ascii")
        digest.chmod(0o644)
        made.replace(path)
        # last: a file without it was not finished
        digest.replace(_digest_file(path))


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _own_folder(folder: Path) -> None:
    """Makes the folder where it is missing, and sees that nobody else can write there.

    Raises:
        StrangeCacheError: somebody else can: it is theirs, or a link.
    """
    with contextlib.suppress(FileExistsError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o755)
    status = folder.stat() if folder == cache_dir() else folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise StrangeCacheError(f"{folder} is no folder. Remove it, or set {CACHE_SETTING}.")
    if status.st_uid == os.geteuid():
        if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
            folder.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
    elif status.st_uid != 0 or (status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX):
        raise StrangeCacheError(
            f"{folder} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):o}), and this is user "
            f"{os.geteuid()}: what others may have written is not loaded. Set {CACHE_SETTING} to a folder of your own."
        )


def _is_ours(status: os.stat_result) -> bool:
    regular = stat.S_ISREG(status.st_mode)
    return regular and status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
