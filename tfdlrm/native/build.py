"""Compiling the kernels into a shared library."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

SOURCE_DIR = Path(__file__).parent / "src"
LIBRARY_NAME = "libtfdlrm_native.so"
# One a translation unit, in the order in which they take longest.
UNITS = ("ops.cc", "kernels_avx512.cc", "kernels_avx2.cc", "kernels_base.cc")
# of the library without TensorFlow, tfdlrm/native/plain.py
PLAIN_UNITS = ("text.cc", "columns.cc", "examples.cc", "bind_address.cc")
_ERROR_LINES = 20


class BuildError(RuntimeError):
    """The library could not be built; says why and what to do."""


def compiler() -> str | None:
    """Path of the C++ compiler: `$CXX`, else g++, else c++; None where there is none."""
    named = os.environ.get("CXX")
    if named:
        return shutil.which(named)
    return shutil.which("g++") or shutil.which("c++")


def sources_digest() -> hashlib._Hash:
    """Of the library's sources, to be gone on with."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCE_DIR.iterdir() if path.name not in PLAIN_UNITS):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest


def cache_key() -> str:
    """What a library depends on, in 16 hexadecimal digits: sources, TensorFlow, compiler, processor."""
    import tensorflow as tf

    digest = sources_digest()
    parts = [tf.__version__, *_flags(), *_link_flags(), compiler_version(), platform.machine(), processor()]
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:16]


def build(target: Path) -> None:
    """Compiles and links the library.

    Args:
        target: where, in a folder that is for nothing else.

    Raises:
        BuildError: no compiler, or it failed.
        OSError: the folder cannot be written.
    """
    found = compiler()
    if found is None:
        raise BuildError("there is no C++ compiler (g++). Install one, for instance with `apt-get install g++`")
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        objects = list(pool.map(lambda unit: _compile(found, unit, target.parent), UNITS))
    run_compiler([found, "-shared", "-o", str(target), *map(str, objects), *_link_flags()])


def _compile(found: str, unit: str, work: Path) -> Path:
    target = work / f"{unit}.o"
    run_compiler([found, *_flags(), "-c", str(SOURCE_DIR / unit), "-o", str(target)])
    return target


def _flags() -> list[str]:
    import tensorflow as tf

    own = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-w"]
    given = os.environ.get("TFDLRM_NATIVE_CXXFLAGS", "").split()
    return [*(flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("--std")), *own, *given]


def _link_flags() -> list[str]:
    import tensorflow as tf

    return [*tf.sysconfig.get_link_flags(), *os.environ.get("TFDLRM_NATIVE_LDFLAGS", "").split()]


def run_compiler(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        raise BuildError(f"{Path(command[0]).name} failed:\n" + "\n".join(lines[:_ERROR_LINES]))


def compiler_version() -> str:
    found = compiler()
    if found is None:
        return ""
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
