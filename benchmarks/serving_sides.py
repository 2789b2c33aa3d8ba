"""The sides of the serving benchmark and how one is run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_calls import CallResult, parse_call_result
from setup_peers import BENCHMARKS_DIR, PEERS_DIR, is_installed, python_of
from sides import INHERITED_SETTINGS_TO_DROP, STDERR_LINES, Absence

PEERS = "serving"  # of setup_peers.ENVIRONMENTS


@dataclass(frozen=True, kw_only=True)
class ServingSide:
    """One way to serve the model.

    Args:
        script: file under benchmarks/.
        environment: key of `setup_peers.ENVIRONMENTS`; None for this project's own interpreter.
        rows: a timed call; none where the side only takes load.
        takes_load: whether the load generator is put before it.
        threads: that a timed call may use; None for as many as the comparison gives.
    """

    script: str
    environment: str | None = None
    rows: tuple[int, ...] = (500, 1)
    takes_load: bool = True
    threads: int | None = None


_OWN, _PEER, _SERVER = "side_serving_tfdlrm.py", "peers/torch_serving.py", "side_serving_server.py"
# TensorFlow loses more by handing parts of so little work to a second thread than it gains; the peers gain.
SERVING_SIDES: Mapping[str, ServingSide] = {
    "tfdlrm-rank": ServingSide(script=_OWN, rows=(500,), threads=1),
    "torchscript": ServingSide(script=_PEER, environment=PEERS),
    "tfdlrm-predict": ServingSide(script=_OWN, threads=1),
    "onnxruntime": ServingSide(script=_PEER, environment=PEERS),
    "tfdlrm-rank-python": ServingSide(script=_OWN, rows=(500,), takes_load=False, threads=1),
    "tfdlrm-predict-python": ServingSide(script=_OWN, takes_load=False, threads=1),
    "torch-eager": ServingSide(script=_PEER, environment=PEERS, takes_load=False),
    "tensorflow": ServingSide(script=_OWN, takes_load=False),
    "tfdlrm-server-rank": ServingSide(script=_SERVER, rows=(500,)),
    "tfdlrm-server-predict": ServingSide(script=_SERVER),
}


def absence_of(name: str, peers_dir: Path = PEERS_DIR) -> Absence | None:
    """The absence to report where a side's environment is not installed."""
    environment = SERVING_SIDES[name].environment
    if environment is None or is_installed(environment, peers_dir):
        return None
    return Absence(side=name, reason=f"not installed (python benchmarks/setup_peers.py {environment})")


def run_serving_side(
    name: str, folder: Path, flags: Sequence[str], *, threads: int, timeout_seconds: float
) -> CallResult | Absence:
    """Runs one side once, in a process of its own; what it says on the way goes to stderr.

    Args:
        name: key of `SERVING_SIDES`.
        folder: that `serving_export.py` wrote.
        flags: further ones, of `serving_side.run_side`.
        threads: that a call may use.
        timeout_seconds: give up after this long.
    """
    absence = absence_of(name)
    if absence is not None:
        return absence
    side = SERVING_SIDES[name]
    python = sys.executable if side.environment is None else str(python_of(side.environment))
    command = [python, str(BENCHMARKS_DIR / side.script), name, "--folder", str(folder), "--threads", str(threads)]
    command += ["--rows", *map(str, side.rows), *flags]
    variables = {key: value for key, value in os.environ.items() if key not in INHERITED_SETTINGS_TO_DROP}
    variables["OMP_NUM_THREADS"] = str(threads)  # PyTorch's own setting does not reach threads that Python starts
    roots = [BENCHMARKS_DIR] if side.environment else [BENCHMARKS_DIR, BENCHMARKS_DIR.parent]
    variables["PYTHONPATH"] = os.pathsep.join(map(str, roots))
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return Absence(side=name, reason=f"no result within {timeout_seconds:.0f} s")
    for line in done.stderr.splitlines():
        if line.startswith(f"{name}: "):
            print(f"  {line}", flush=True)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-STDERR_LINES:])
        return Absence(side=name, reason=f"exit code {done.returncode}\n{tail}")
    try:
        return parse_call_result(done.stdout)
    except ValueError as error:
        return Absence(side=name, reason=str(error))
