"""The C program that loads an export by TensorFlow's C API, as TensorFlow Serving does: built once, then run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savedmodels.verification.job_file import JobRequest, decode_answers, encode_job

SOURCE = Path(__file__).resolve().parents[1] / "capi" / "replay.c"
PROGRAM = "replay"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")
TIMEOUT_SECONDS = 3600.0
_ERROR_LINES = 10


class NoCompilerError(RuntimeError):
    """There is no C compiler; says what to do."""


class ProgramError(RuntimeError):
    """The program could not be built, or ended without answers; says why."""


def compiler() -> str | None:
    """Path of the C compiler: `$CC`, else gcc, else cc; None where there is none."""
    named = os.environ.get("CC")
    if named:
        return shutil.which(named)
    return shutil.which("gcc") or shutil.which("cc")


def ensure_built() -> Path:
    """The program, built unless the cache has it for this source, TensorFlow and compiler.

    Raises:
        NoCompilerError: there is no C compiler.
        ProgramError: it failed, or TensorFlow is not installed.
        OSError: the cache cannot be written.
    """
    from tfdlrm.native.cache import built_once, cache_dir

    found = compiler()
    if found is None:
        raise NoCompilerError("no C compiler (gcc, cc or $CC). Install one, for instance with `apt-get install gcc`")
    tensorflow = _tensorflow_folder()
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [str(tensorflow), importlib.metadata.version("tensorflow"), version, platform.machine(), *FLAGS]
    digest = hashlib.sha256(SOURCE.read_bytes() + "\0".join(parts).encode())
    program = cache_dir() / f"capi-{digest.hexdigest()[:16]}" / PROGRAM
    return built_once(program, lambda target: build(target, found, tensorflow))


def build(
    target: Path,
    found: str,
    tensorflow: Path | None = None,
    *,
    source: Path = SOURCE,
    flags: Sequence[str] = FLAGS,
) -> None:
    """Compiles the program, or another with its flags.

    Raises:
        ProgramError: the compiler failed.
    """
    folder = tensorflow or _tensorflow_folder()
    command = [found, *flags, str(source), "-o", str(target), "-isystem", str(folder / "include"), f"-L{folder}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{folder}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        raise ProgramError(f"{Path(found).name} failed: " + "; ".join(lines[:_ERROR_LINES]))


def replay(program: Path, version_folder: Path, requests: Sequence[JobRequest]) -> list[list[np.ndarray] | str]:
    """Has the program load an export and answer requests.

    Returns:
        For each request its outputs in the order of its fetches, or the message of its failure.

    Raises:
        ProgramError: it ended without answers; says why.
        ValueError: a request cannot be given to it.
    """
    with tempfile.TemporaryDirectory(prefix="tfdlrm-capi-") as folder:
        job, answers = Path(folder) / "job", Path(folder) / "answers"
        job.write_bytes(encode_job(requests))
        run_program(program, version_folder, job, answers)
        try:
            return decode_answers(answers.read_bytes())
        except ValueError as error:
            raise ProgramError(f"{PROGRAM}: {error}") from error


def run_program(program: Path, version_folder: Path, job: Path, answers: Path) -> None:
    """Runs the program on files.

    Raises:
        ProgramError: its exit code is not 0; the message has its last line.
    """
    command = [str(program), str(version_folder.resolve()), str(job), str(answers)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    try:
        result = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{PROGRAM} did not end within {TIMEOUT_SECONDS:.0f} s") from error
    if result.returncode != 0:
        last = (result.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise ProgramError(f"{PROGRAM} ended with code {result.returncode}: {' '.join(last.split())}")


def _tensorflow_folder() -> Path:
    # found and not imported: TensorFlow's start-up takes seconds
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ProgramError("TensorFlow is not installed")
    return Path(next(iter(spec.submodule_search_locations)))
