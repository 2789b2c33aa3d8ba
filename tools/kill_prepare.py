"""Kills a preparation with SIGKILL at random moments, runs it again, and compares every byte with one left alone.

    python tools/kill_prepare.py rows.tsv --format criteo-kaggle --memory 2GB --kills 10

The second preparation is killed and started anew `--kills` times, each after a random share of the time that the first
one took, and then runs to its end. Every file must then be that of the first one. Exits with 1 where one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GIGA = 1e9


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def start(arguments: argparse.Namespace, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tfdlrm", "data", "prepare", str(arguments.source), str(output), "--quiet"]
    command += ["--format", arguments.format, *(["--memory", arguments.memory] if arguments.memory else [])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Waits for a preparation that has to succeed; its peak resident bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"the preparation ended with status {status}")
    return usage.ru_maxrss * 1024.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the raw rows")
    parser.add_argument("--format", default="criteo-kaggle")
    parser.add_argument("--memory", help="for --memory of the command")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=None, help="where both are written; default: beside the rows")
    arguments = parser.parse_args(argv)
    arguments.source = arguments.source.resolve()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.scratch or arguments.source.parent) as scratch:
        # one name for both: the manifest has the command's folder in it
        output = Path(scratch) / "prepared"
        began = time.perf_counter()
        peak = finish(start(arguments, output))
        seconds = time.perf_counter() - began
        expected = checksums(output)
        print(f"left alone: {seconds:.0f} s, peak {peak / GIGA:.2f} GB, {len(expected)} files", flush=True)
        shutil.rmtree(output)
        killed = 0
        for number in range(arguments.kills):
            process = start(arguments, output)
            wait = draw.uniform(0.02, 1.5 / arguments.kills) * seconds
            try:
                process.wait(wait)
                print(f"kill {number + 1}: the preparation had ended after {wait:.0f} s", flush=True)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                print(f"kill {number + 1}: after {wait:.0f} s", flush=True)
        peak = finish(start(arguments, output))
        found = checksums(output)
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    print(f"killed {killed} times, then ended: peak {peak / GIGA:.2f} GB, {len(found)} files, {len(wrong)} differ")
    for name in wrong[:20]:
        print(f"- {name}")
    return 1 if wrong or not killed else 0


if __name__ == "__main__":
    raise SystemExit(main())
