"""Finding, building and loading the kernels' library, once a process."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfdlrm.native import build

SETTING = "TFDLRM_NATIVE"
CACHE_SETTING = "TFDLRM_NATIVE_CACHE"
_SETTINGS = ("auto", "off", "require")
_lock = threading.Lock()


class NativeWarning(RuntimeWarning):
    """The kernels are not used; says why, what that costs and how to change it."""


def library() -> Any | None:
    """The module of generated op functions, or None where the kernels are off or cannot be had.

    The first call builds the library where the cache holds none, and takes seconds then.

    Raises:
        ValueError: `TFDLRM_NATIVE` is none of auto, off, require.
        RuntimeError: `TFDLRM_NATIVE=require` and the kernels cannot be had.
    """
    with _lock:
        return _library(setting())


def cache_dir() -> Path:
    """Where libraries are kept: `$TFDLRM_NATIVE_CACHE`, else `tfdlrm/native` in the user's cache folder."""
    named = os.environ.get(CACHE_SETTING)
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tfdlrm" / "native"


def library_path() -> Path:
    """Where the library for this TensorFlow, compiler and processor is, or would be."""
    return cache_dir() / build.cache_key() / build.LIBRARY_NAME


def ensure_built() -> Path:
    """Builds the library unless the cache has it whole; two processes build it once.

    Raises:
        build.BuildError: no compiler, or it failed.
        OSError: the cache cannot be written.
    """
    path = library_path()
    if build.is_whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.parent / "lock"):
        if not build.is_whole(path):
            _say(f"tfdlrm: building native kernels into {path.parent} (once, about 15 s) ...")
            start = time.perf_counter()
            build.build(path)
            _say(f"tfdlrm: built in {time.perf_counter() - start:.0f} s")
    return path


def build_and_load() -> Path:
    """Builds the library where it is missing, loads it, and returns where it is; for `tfdlrm native build`.

    Raises:
        RuntimeError: it cannot be built, written or loaded; says why.
    """
    try:
        path = ensure_built()
        _load(path)
    except (build.BuildError, OSError) as error:
        raise RuntimeError(f"the native kernels cannot be built in {cache_dir()}: {error}") from error
    return path


def setting() -> str:
    setting = os.environ.get(SETTING, "auto").strip().lower() or "auto"
    if setting not in _SETTINGS:
        raise ValueError(f"{SETTING}={setting!r} is unknown. Use one of {', '.join(_SETTINGS)}.")
    return setting


@functools.cache
def _library(setting: str) -> Any | None:
    if setting == "off":
        return None
    if setting == "auto" and _gpus():
        return None  # tables live there, and the kernels read memory of the host
    try:
        return _load(ensure_built())
    except (build.BuildError, OSError, RuntimeError) as error:
        message = (
            f"native kernels cannot be used: {error}. Cache folder: {cache_dir()} (set {CACHE_SETTING} to one that "
            f"can be written). "
        )
        if setting == "require":
            raise RuntimeError(f"{SETTING}=require, but {message}") from error
        warnings.warn(
            f"{message}Training goes on with TensorFlow's own ops: the same numbers, embedding lookups and updates "
            f"several times slower. `tfdlrm native build` tries again and shows the whole error; {SETTING}=off "
            "silences this.",
            NativeWarning,
            stacklevel=3,
        )
        return None


def _gpus() -> list[Any]:
    import tensorflow as tf

    return tf.config.get_visible_devices("GPU")


@functools.cache
def _load(path: Path) -> Any:
    import tensorflow as tf

    try:
        module = tf.load_op_library(str(path))
    except tf.errors.OpError as error:
        raise RuntimeError(f"{path} cannot be loaded ({error.message})") from error
    from tfdlrm.native import gradients

    gradients.register(module)
    return module


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("tfdlrm: another process is building the native kernels; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
