"""Finding, building and loading the kernels' library, once a process."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from pathlib import Path
from typing import Any

from tfdlrm.native import build
from tfdlrm.native.cache import CACHE_SETTING, built_once, cache_dir

SETTING = "TFDLRM_NATIVE"
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


def library_path() -> Path:
    """Where the library for this TensorFlow, compiler and processor is, or would be."""
    return cache_dir() / build.cache_key() / build.LIBRARY_NAME


def ensure_built() -> Path:
    """Builds the library unless the cache has it whole; two processes build it once.

    Raises:
        build.BuildError: no compiler, or it failed.
        OSError: the cache cannot be written.
    """
    return built_once(library_path(), build.build, f"building native kernels into {cache_dir()} (once, about 15 s)")


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
