"""Random calls, files and requests, valid and not: no crash, no wrong row, no leak, and every refusal has its name.

    python tools/fuzz.py --seconds 600                             # calls of the native kernels
    python tools/fuzz.py --of files --seconds 600 --sanitize address    # native code built for addresses and undefined
    python tools/fuzz.py --of requests --seconds 60 --sanitize thread   # behaviour, or for threads
    python tools/fuzz.py --of calls files --rounds 40 200               # one after another, so many rounds of each
    python tools/fuzz.py --of files --seed 4711 --rounds 1         # repeats the round that a failure names

Of calls, each round draws a table, bags, weights and an optimizer from its own seed, and compares lookup, update and
sums with NumPy in float64; every third round is made invalid in one way and must be refused, with the table as it was.
Several threads share one table meanwhile. Of files, one of each format (CSV, Criteo's text, gzip, Zstandard, Parquet,
prepared data with their descriptions) is changed, and is read within the bounds of its schema or refused by its name.
Of requests, bytes, values and tensors of requests over REST and gRPC are changed, and a server answers each of them,
and good ones as before.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LEAK_LIMIT_MIB = 64.0  # resident growth after the warm-up; allocators keep some slack
WARM_SHARE = 0.2
ROUNDS_A_CACHE = 20
ROUND_FILE = "TFDLRM_FUZZ_ROUND"  # where the process that runs the rounds notes the one it is in
# TensorFlow's thread pool hands a std::function over by means that the sanitizer does not see. What the function does
# is ordered by annotations (threads.inc); that it is read at all, to be called, comes before any of them.
SUPPRESSIONS = Path(__file__).with_name("fuzz.tsan")
# All of `undefined` but null, nonnull and vptr: under these g++ takes no comparison with a null pointer for a constant
# any more, which Abseil's headers need.
UNDEFINED = (
    *("shift", "integer-divide-by-zero", "unreachable", "return", "signed-integer-overflow", "bounds", "bool", "enum"),
    *("alignment", "pointer-overflow"),
)
# checks of a build, the libraries it needs before all others, and how they are told to behave
SANITIZERS = {
    "address": (
        ("address", *UNDEFINED),
        ("libasan.so", "libubsan.so"),
        {
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:detect_container_overflow=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        },
    ),
    "thread": (
        ("thread",),
        ("libtsan.so",),
        {"TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:halt_on_error=1:report_bugs=1:suppressions={SUPPRESSIONS}"},
    ),
}


def run_apart(command: list[str], environment: dict[str, str]) -> int:
    """Runs this script's rounds in a process of their own: where one of them ends it, its name is told."""
    with tempfile.TemporaryDirectory() as folder:
        noted = Path(folder) / "round"
        noted.touch()
        code = subprocess.run(command, env={**environment, ROUND_FILE: str(noted)}, check=False, cwd=ROOT).returncode
        again = noted.read_text(encoding="utf-8").splitlines()
    if code and again:
        end = signal.Signals(-code).name if code < 0 else f"code {code}"
        print(f"ended with {end} in, or after, {again[0]}", flush=True)
    return code


def sanitized(name: str) -> tuple[list[str], dict[str, str]] | None:
    """How a process starts that loads kernels built with the sanitizer; None where g++ has none."""
    checks, libraries, options = SANITIZERS[name]
    # with libstdc++, or the sanitizer does not find what it wraps when another module throws
    preload = [file_of_compiler(library) for library in (*libraries, "libstdc++.so.6")]
    missing = [library for library, path in zip(libraries, preload, strict=False) if not path.is_absolute()]
    if missing:
        print(f"{missing[0]} is not installed with g++; the {name} sanitizer cannot run here")
        return None
    sanitize = f"-fsanitize={','.join(checks)}"
    cache = Path(tempfile.gettempdir()) / f"tfdlrm-fuzz-{name}-{os.getuid()}"
    environment = {
        **os.environ,
        **options,
        "TFDLRM_NATIVE": "require",
        "TFDLRM_NATIVE_CACHE": str(cache),
        "TFDLRM_NATIVE_CXXFLAGS": f"-O1 {sanitize} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1",
        "TFDLRM_NATIVE_LDFLAGS": sanitize,
    }
    # built without the preload: g++ itself would run under the sanitizer
    build = "from tfdlrm.native import loader, plain; loader.ensure_built(); plain.ensure_built()"
    subprocess.run([sys.executable, "-c", build], env=environment, check=True, cwd=ROOT)
    environment["LD_PRELOAD"] = " ".join(map(str, preload))
    # a page of the shadow must stand where the sanitizer wants it
    return ["setarch", os.uname().machine, "-R"], environment


def file_of_compiler(library: str) -> Path:
    """Where g++ has a library; its bare name where it has none."""
    found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def resident_mib() -> float:
    """What the process holds, without what it has freed and the allocator keeps: that varies with load."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def share_done(start: float, rounds: int, seconds: float, asked: int | None) -> float:
    """How much of what was asked for is behind."""
    return (time.monotonic() - start) / seconds if asked is None else rounds / asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", choices=tuple(KINDS), default=["calls"], help="default: calls")
    parser.add_argument("--seconds", type=float, default=60, help="of each; default: %(default)s")
    parser.add_argument("--rounds", type=int, nargs="+", help="so many of each, however long they take")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round adds 1")
    parser.add_argument("--sanitize", choices=tuple(SANITIZERS))
    arguments = parser.parse_args()
    if arguments.rounds and len(arguments.rounds) != len(arguments.of):
        parser.error(f"--rounds has {len(arguments.rounds)} numbers, and --of {len(arguments.of)} kinds")
    if ROUND_FILE not in os.environ:
        start = sanitized(arguments.sanitize) if arguments.sanitize else ([], dict(os.environ))
        return 2 if start is None else run_apart([*start[0], sys.executable, __file__, *sys.argv[1:]], start[1])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # of a damaged file polars tells on stderr where in itself it noticed
    os.environ.setdefault("RUST_BACKTRACE", "0")
    asked = arguments.rounds or [None] * len(arguments.of)
    return max(
        run_kind(kind, arguments.seed, arguments.seconds, rounds)
        for kind, rounds in zip(arguments.of, asked, strict=True)
    )


def run_kind(kind: str, first: int, seconds: float, asked: int | None) -> int:
    """Rounds of one kind, from the seed `first` on; prints what was found, and returns 1 where something was."""
    start, rounds, refused, warm = time.monotonic(), 0, 0, 0.0
    with contextlib.ExitStack() as stack:
        noted = stack.enter_context(open(os.environ[ROUND_FILE], "r+b", buffering=0))
        run_round, problems = KINDS[kind](stack, first)
        while (share := share_done(start, rounds, seconds, asked)) < 1:
            seed = first + rounds
            again = f"python tools/fuzz.py --of {kind} --seed {seed} --rounds 1"
            noted.seek(0)
            noted.write(f"{again}\n".encode())
            try:
                refused += run_round(seed)
            except BaseException:
                print(f"FAILED in round {seed}: {again}", flush=True)
                raise
            rounds += 1
            if not warm and share > WARM_SHARE:
                warm = resident_mib()
        growth = resident_mib() - warm if warm else 0.0
    print(
        f"{kind}: {rounds} rounds, {refused} of them refused as they should be; resident memory grew by "
        f"{growth:.1f} MiB (limit {LEAK_LIMIT_MIB:.0f})"
    )
    print("\n".join(problems[:5]), end="")
    # a sanitizer keeps freed memory for a while
    sanitized = "san" in os.environ.get("LD_PRELOAD", "")
    return 1 if problems or (growth > LEAK_LIMIT_MIB and not sanitized) else 0


Rounds = tuple[Callable[[int], int], list[str]]  # one round by its seed, and what is found beside the rounds


def calls(stack: contextlib.ExitStack, seed: int) -> Rounds:
    """Calls of the kernels, with threads beside them that share a table."""
    from tensorflow.python.eager import context

    from tests.native.fuzz_calls import SharedTable, run_round

    shared = SharedTable(seed=seed)
    beside = [threading.Thread(target=shared.work, args=(worker,), daemon=True) for worker in range(2)]
    for thread in beside:
        thread.start()
        stack.callback(thread.join)
    stack.callback(shared.stop)

    def run(seed: int) -> int:
        if seed % ROUNDS_A_CACHE == 0:
            # TensorFlow keeps a kernel for every set of attributes it has seen; here each round brings new ones
            context.context().clear_kernel_cache()
        return run_round(seed)

    return run, shared.problems


def files(stack: contextlib.ExitStack, seed: int) -> Rounds:
    """Files of every format."""
    from tests.data.fuzz_files import FileRounds

    return FileRounds(Path(stack.enter_context(tempfile.TemporaryDirectory()))).run, []


def requests(stack: contextlib.ExitStack, seed: int) -> Rounds:
    """Requests of a server in this process."""
    from tests.savedmodels.server.fuzz_requests import RequestRounds

    served = RequestRounds(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    stack.callback(served.close)
    return served.run, []


KINDS = {"calls": calls, "files": files, "requests": requests}


if __name__ == "__main__":
    sys.exit(main())
