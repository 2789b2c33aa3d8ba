"""The plain functions: rows of text and columns, in a library of their own that needs nothing of TensorFlow.

Preparing data takes no TensorFlow, whose import alone takes seconds; and without its headers this builds in two.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import threading
import warnings
from pathlib import Path
from typing import Any

from tfdlrm.native import build, loader
from tfdlrm.native.cache import CACHE_SETTING, built_once, cache_dir

LIBRARY_NAME = "libtfdlrm_plain.so"
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-pthread",
    "-w",
)
_lock = threading.Lock()

pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


def function(name: str, arguments: tuple[type, ...], result: type | None = int64) -> Any | None:
    """One function of the library; calls of it release Python's lock.

    Args:
        name: what it is called there.
        arguments: ctypes of what it takes.
        result: ctype of what it returns.

    Returns:
        None where the library is off (`TFDLRM_NATIVE=off`) or cannot be had, which is said once.

    Raises:
        ValueError: `TFDLRM_NATIVE` is none of auto, off, require.
        RuntimeError: `TFDLRM_NATIVE=require` and the library cannot be had.
    """
    library = functions()
    return None if library is None else _typed(library, name, arguments, result)


def functions() -> ctypes.CDLL | None:
    """The library, None and errors as for `function`. The first call builds it where the cache holds none."""
    with _lock:
        return _library(loader.setting())


@functools.cache
def _typed(library: ctypes.CDLL, name: str, arguments: tuple[type, ...], result: type | None) -> Any:
    found = getattr(library, name)
    found.argtypes, found.restype = arguments, result
    return found


def library_path() -> Path:
    """Where the library for this compiler and processor is, or would be."""
    return cache_dir() / f"plain-{_cache_key()}" / LIBRARY_NAME


def ensure_built() -> Path:
    """Builds the library unless the cache has it whole; two processes build it once.

    Raises:
        build.BuildError: no compiler, or it failed.
        OSError: the cache cannot be written.
    """
    return built_once(library_path(), _build)


@functools.cache
def _library(setting: str) -> ctypes.CDLL | None:
    if setting == "off":
        return None
    try:
        return ctypes.CDLL(str(ensure_built()))
    except (build.BuildError, OSError) as error:
        message = (
            f"native functions for data cannot be used: {error}. Cache folder: {cache_dir()} (set "
            f"{CACHE_SETTING} to one that can be written). "
        )
        if setting == "require":
            raise RuntimeError(f"{loader.SETTING}=require, but {message}") from error
        warnings.warn(
            f"{message}Preparing and reading data goes on without them: the same bytes, more slowly. "
            f"{loader.SETTING}=off silences this.",
            loader.NativeWarning,
            stacklevel=4,
        )
        return None


def _build(target: Path) -> None:
    found = build.compiler()
    if found is None:
        raise build.BuildError("there is no C++ compiler (g++). Install one, for instance with `apt-get install g++`")
    sources = [str(build.SOURCE_DIR / unit) for unit in build.PLAIN_UNITS]
    build.run_compiler([found, *_flags(), "-shared", *sources, "-o", str(target)])


def _flags() -> list[str]:
    given = (os.environ.get(name, "") for name in ("TFDLRM_NATIVE_CXXFLAGS", "TFDLRM_NATIVE_LDFLAGS"))
    return [*_FLAGS, *" ".join(given).split()]


def _cache_key() -> str:
    digest = hashlib.sha256()
    for unit in build.PLAIN_UNITS:
        digest.update((build.SOURCE_DIR / unit).read_bytes())
    parts = [*_flags(), build.compiler_version(), platform.machine(), build.processor()]
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:16]
