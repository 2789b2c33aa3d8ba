"""Random calls of the native kernels, valid and not: no crash, no wrong row, no leak.

    python tools/fuzz_native.py --seconds 600
    python tools/fuzz_native.py --seconds 60 --sanitize address    # or thread: the kernels built with that sanitizer
    python tools/fuzz_native.py --seed 4711 --rounds 1             # repeats the round that a failure names

Each round draws a table, bags, weights and an optimizer from its own seed, and compares lookup, update and sums with
NumPy in float64; every third round is made invalid in one way and must be refused, with the table as it was. Several
threads share one table meanwhile.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LEAK_LIMIT_MIB = 64.0  # resident growth after the warm-up; allocators keep some slack
WARM_SHARE = 0.2
ROUNDS_A_CACHE = 20
# TensorFlow's thread pool hands a std::function over by means that the sanitizer does not see. What the function does
# is ordered by annotations (threads.inc); that it is read at all, to be called, comes before any of them.
SUPPRESSIONS = Path(__file__).with_name("fuzz_native.tsan")
SANITIZERS = {
    "address": ("libasan.so", {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:detect_container_overflow=0"}),
    "thread": (
        "libtsan.so",
        {"TSAN_OPTIONS": f"ignore_noninstrumented_modules=1:halt_on_error=1:report_bugs=1:suppressions={SUPPRESSIONS}"},
    ),
}


def run_sanitized(name: str, arguments: list[str]) -> int:
    """Runs this script again in a process that loads kernels built with the sanitizer."""
    library, options = SANITIZERS[name]
    found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    runtime = Path(found.stdout.strip())
    if not runtime.is_absolute():
        print(f"{library} is not installed with g++; the {name} sanitizer cannot run here")
        return 2
    cache = Path(tempfile.gettempdir()) / f"tfdlrm-fuzz-{name}-{os.getuid()}"
    environment = {
        **os.environ,
        **options,
        "TFDLRM_NATIVE": "require",
        "TFDLRM_NATIVE_CACHE": str(cache),
        "TFDLRM_NATIVE_CXXFLAGS": f"-O1 -fsanitize={name} -fno-omit-frame-pointer -g1",
        "TFDLRM_NATIVE_LDFLAGS": f"-fsanitize={name}",
    }
    # built without the preload: g++ itself would run under the sanitizer
    build = "from tfdlrm.native import loader; loader.ensure_built()"
    subprocess.run([sys.executable, "-c", build], env=environment, check=True, cwd=ROOT)
    # with libstdc++, or the sanitizer does not find what it wraps when another module throws
    standard = subprocess.run(["g++", "-print-file-name=libstdc++.so.6"], capture_output=True, text=True, check=True)
    environment["LD_PRELOAD"] = f"{runtime} {standard.stdout.strip()}"
    # a page of the shadow must stand where the sanitizer wants it
    command = ["setarch", os.uname().machine, "-R", sys.executable, __file__, *arguments]
    return subprocess.run(command, env=environment, check=False, cwd=ROOT).returncode


def resident_mib() -> float:
    """What the process holds, without what it has freed and the allocator keeps: that varies with load."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def share_done(start: float, rounds: int, arguments: argparse.Namespace) -> float:
    """How much of what was asked for is behind."""
    if arguments.rounds is not None:
        return rounds / arguments.rounds
    return (time.monotonic() - start) / arguments.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s; not looked at with --rounds")
    parser.add_argument("--rounds", type=int, help="so many, however long they take")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round adds 1")
    parser.add_argument("--sanitize", choices=tuple(SANITIZERS))
    arguments = parser.parse_args()
    if arguments.sanitize:
        passed = ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
        return run_sanitized(
            arguments.sanitize, passed + (["--rounds", str(arguments.rounds)] if arguments.rounds else [])
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tensorflow.python.eager import context

    from tests.native.fuzz_rounds import SharedTable, run_round

    shared = SharedTable(seed=arguments.seed)
    beside = [threading.Thread(target=shared.work, args=(worker,), daemon=True) for worker in range(2)]
    for thread in beside:
        thread.start()
    start, rounds, refused, warm = time.monotonic(), 0, 0, 0.0
    try:
        while (share := share_done(start, rounds, arguments)) < 1:
            seed = arguments.seed + rounds
            try:
                refused += run_round(seed)
            except Exception:
                print(f"FAILED in round {seed}: python tools/fuzz_native.py --seed {seed} --rounds 1", flush=True)
                raise
            rounds += 1
            if rounds % ROUNDS_A_CACHE == 0:
                # TensorFlow keeps a kernel for every set of attributes it has seen; here each round brings new ones
                context.context().clear_kernel_cache()
            if not warm and share > WARM_SHARE:
                warm = resident_mib()
    finally:
        shared.stop()
        for thread in beside:
            thread.join()
    growth = resident_mib() - warm if warm else 0.0
    print(
        f"{rounds} rounds, {refused} of them refused as they should be; {shared.calls} calls of threads beside them; "
        f"resident memory grew by {growth:.1f} MiB (limit {LEAK_LIMIT_MIB:.0f})"
    )
    if shared.problems:
        print("\n".join(shared.problems[:5]))
        return 1
    # a sanitizer keeps freed memory for a while
    sanitized = "san" in os.environ.get("LD_PRELOAD", "")
    return 1 if growth > LEAK_LIMIT_MIB and not sanitized else 0


if __name__ == "__main__":
    sys.exit(main())
