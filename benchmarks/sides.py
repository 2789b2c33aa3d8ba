"""Every side of every comparison: which script runs it, and in which environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from measurement import SideResult, parse_result
from setup_peers import BENCHMARKS_DIR, PEERS_DIR, is_installed, python_of
from workload import Workload

STDERR_LINES = 15  # of a failed side, to show why
# A side's environment must not be changed by what the caller exported for another one.
INHERITED_SETTINGS_TO_DROP = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND", "PYTHONPATH", "B", "D", "CAP", "SECS")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One competitor.

    Args:
        script: File under `benchmarks/`.
        arguments: Its arguments, before those of the workload.
        environment: Key of `setup_peers.ENVIRONMENTS`; None for this project itself.
        same_work_as: The side of this project with the same optimizers; None for this project's own sides.
        models: Of `workload.HIDDEN_LAYERS`, whose work it does; none where it is no match for a peer.
        variables: Set in its environment.
    """

    script: str
    arguments: tuple[str, ...] = ()
    environment: str | None = None
    same_work_as: str | None = None
    models: tuple[str, ...] = ("dlrm",)
    variables: tuple[tuple[str, str], ...] = ()


def _own_bags(*arguments: str, native: bool = True) -> Side:
    variables = () if native else (("TFDLRM_NATIVE", "off"),)
    return Side(script="side_tfdlrm_bags.py", arguments=arguments, models=("bags",), variables=variables)


def _torch_bags(*arguments: str, same_work_as: str) -> Side:
    return Side(
        script="peers/torch_bags.py",
        arguments=arguments,
        environment="torch",
        same_work_as=same_work_as,
        models=("bags",),
    )


SIDES: Mapping[str, Side] = {
    "tfdlrm-rowwise_adagrad": Side(script="side_tfdlrm.py", arguments=("rowwise_adagrad",), models=("dlrm", "dcnv2")),
    "fbgemm": Side(
        script="peers/torch_dlrm.py",
        arguments=("fbgemm",),
        environment="torch",
        same_work_as="tfdlrm-rowwise_adagrad",
        models=("dlrm", "dcnv2"),
    ),
    "tfdlrm-fit": Side(script="side_tfdlrm.py", arguments=("rowwise_adagrad", "--fit")),
    "tfdlrm-sgd": Side(script="side_tfdlrm.py", arguments=("sgd",)),
    "torch-sgd": Side(script="peers/torch_dlrm.py", arguments=("sgd",), environment="torch", same_work_as="tfdlrm-sgd"),
    "tfdlrm-adagrad": Side(script="side_tfdlrm.py", arguments=("adagrad",)),
    "torch-adagrad": Side(
        script="peers/torch_dlrm.py",
        arguments=("adagrad",),
        environment="torch",
        same_work_as="tfdlrm-adagrad",
    ),
    "tfrs": Side(script="peers/tfrs_dlrm.py", environment="tfrs", same_work_as="tfdlrm-adagrad"),
    "keras-sgd": Side(
        script="peers/keras_dlrm.py", arguments=("sgd",), environment="keras-rs", same_work_as="tfdlrm-sgd"
    ),
    "keras-adagrad": Side(
        script="peers/keras_dlrm.py",
        arguments=("adagrad",),
        environment="keras-rs",
        same_work_as="tfdlrm-adagrad",
    ),
    # embedding_bags.py: lookups alone, then lookup, backward pass and update
    "tfdlrm-lookup": _own_bags("rowwise_adagrad", "--forward"),
    "fbgemm-lookup": _torch_bags("fbgemm", "--forward", same_work_as="tfdlrm-lookup"),
    "torch-lookup": _torch_bags("torch", "--forward", same_work_as="tfdlrm-lookup"),
    "tfdlrm-lookup-stock": _own_bags("rowwise_adagrad", "--forward", native=False),
    "tfdlrm-update": _own_bags("rowwise_adagrad"),
    "fbgemm-update": _torch_bags("fbgemm", same_work_as="tfdlrm-update"),
    "tfdlrm-update-sgd": _own_bags("sgd"),
    "torch-update-sgd": _torch_bags("torch", same_work_as="tfdlrm-update-sgd"),
    "tfdlrm-update-stock": _own_bags("rowwise_adagrad", native=False),
    # fit_from_files.py
    "tfdlrm-files-fit": Side(script="side_tfdlrm_files.py", arguments=("fit",), models=()),
    "tfdlrm-files-bare": Side(script="side_tfdlrm_files.py", arguments=("bare",), models=()),
    # floor.py
    "floor-products-tensorflow": Side(script="side_floor.py", arguments=("products", "tensorflow"), models=()),
    "floor-products-numpy": Side(script="side_floor.py", arguments=("products", "numpy"), models=()),
    "floor-rows-tfdlrm": Side(script="side_floor.py", arguments=("rows", "tfdlrm"), models=()),
    "floor-rows-numpy": Side(script="side_floor.py", arguments=("rows", "numpy"), models=()),
}


def sides_of(model: str) -> list[str]:
    """Names of the sides that do the work of `model`."""
    return [name for name, side in SIDES.items() if model in side.models]


@dataclass(frozen=True, kw_only=True)
class Absence:
    """Why a side has no result: `reason` is "not installed" or what went wrong."""

    side: str
    reason: str


def missing_peer(name: str, peers_dir: Path = PEERS_DIR) -> Absence | None:
    """The absence to report where the environment of side `name` is not there; None where it can run."""
    environment = SIDES[name].environment
    if environment is None or is_installed(environment, peers_dir):
        return None
    return Absence(side=name, reason=f"not installed (python benchmarks/setup_peers.py {environment})")


def run_side(name: str, workload: Workload, *, seconds: float, timeout_seconds: float) -> SideResult | Absence:
    """Runs one side once, in a process of its own.

    Args:
        name: Key of `SIDES`.
        workload: What to run.
        seconds: Time to measure for, after warm-up.
        timeout_seconds: Give up after this long, start of the process and building of tables included.

    Returns:
        Its result, or why there is none. A side that fails is reported, never left out.
    """
    absence = missing_peer(name)
    if absence is not None:
        return absence
    side = SIDES[name]
    python = sys.executable if side.environment is None else str(python_of(side.environment))
    command = [python, str(BENCHMARKS_DIR / side.script), *side.arguments]
    command += [*workload.to_flags(), "--seconds", str(seconds)]
    variables = {key: value for key, value in os.environ.items() if key not in INHERITED_SETTINGS_TO_DROP}
    variables |= dict(side.variables)
    # The benchmarks' own modules for all; this project's packages for this project only.
    roots = [BENCHMARKS_DIR] if side.environment else [BENCHMARKS_DIR, BENCHMARKS_DIR.parent]
    variables["PYTHONPATH"] = os.pathsep.join(map(str, roots))
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return Absence(side=name, reason=f"no result within {timeout_seconds:.0f} s")
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-STDERR_LINES:])
        return Absence(side=name, reason=f"exit code {done.returncode}\n{tail}")
    try:
        return replace(parse_result(done.stdout), side=name)
    except ValueError as error:
        return Absence(side=name, reason=str(error))
