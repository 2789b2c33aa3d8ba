"""Makes the virtual environments the peers run in: `build/peers/<name>`, one for each row of `ENVIRONMENTS`.

Each peer has an environment of its own because PyTorch, TF-Keras 2 and Keras 3 stacks do not agree on
versions, and because this project must never gain a dependency on what it is measured against.

    python benchmarks/setup_peers.py            # all of them
    python benchmarks/setup_peers.py torch      # one

An environment whose requirements are already met is left alone; `--force` makes it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BENCHMARKS_DIR = Path(__file__).resolve().parent
PEERS_DIR = BENCHMARKS_DIR.parent / "build" / "peers"
MARKER = "installed.json"  # written last, so that its presence means a finished installation


@dataclass(frozen=True, kw_only=True)
class PeerEnvironment:
    """Exact requirements of one environment and the modules that must import once it is made."""

    requirements: tuple[str, ...]
    check_imports: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()


ENVIRONMENTS: Mapping[str, PeerEnvironment] = {
    "torch": PeerEnvironment(
        requirements=("torch==2.13.0", "numpy", "fbgemm-gpu-cpu==1.8.0"),
        check_imports=("torch", "fbgemm_gpu"),
    ),
    "tfrs": PeerEnvironment(
        requirements=("tensorflow==2.21.0", "tensorflow-recommenders==0.7.7"),
        check_imports=("tensorflow", "tensorflow_recommenders"),
        variables=(("TF_USE_LEGACY_KERAS", "1"),),  # TFRS needs tf.keras to be Keras 2
    ),
    "keras-rs": PeerEnvironment(
        requirements=("tensorflow==2.21.0", "keras-rs==0.4.0"),
        check_imports=("tensorflow", "keras_rs"),
    ),
    "tabular": PeerEnvironment(
        requirements=("lightgbm==4.7.0", "scikit-learn==1.9.1", "polars==2.1.0", "numpy"),
        check_imports=("lightgbm", "sklearn", "polars"),
    ),
    # torch.onnx.export writes through onnxscript; the load generator is MLPerf's
    "serving": PeerEnvironment(
        requirements=(
            "torch==2.13.0",
            "numpy",
            "onnx==1.23.2",
            "onnxruntime==1.32.0",
            "onnxscript==0.7.2",
            "mlcommons-loadgen==6.0.17",
        ),
        check_imports=("torch", "onnx", "onnxruntime", "onnxscript", "mlperf_loadgen"),
    ),
}


def python_of(name: str, peers_dir: Path = PEERS_DIR) -> Path:
    """The interpreter of environment `name`, whether or not it exists yet."""
    return peers_dir / name / "bin" / "python"


def is_installed(name: str, peers_dir: Path = PEERS_DIR) -> bool:
    """Whether environment `name` was completed with the requirements this file asks for."""
    marker = peers_dir / name / MARKER
    if not marker.is_file() or not python_of(name, peers_dir).exists():
        return False
    try:
        return json.loads(marker.read_text()) == list(ENVIRONMENTS[name].requirements)
    except json.JSONDecodeError:
        return False


def install(name: str, *, force: bool = False, peers_dir: Path = PEERS_DIR) -> None:
    """Makes environment `name`, installs its requirements and checks that its modules import.

    Args:
        name: A key of `ENVIRONMENTS`.
        force: Make it anew even if it is complete.
        peers_dir: Where environments live.

    Raises:
        subprocess.CalledProcessError: pip or the import check failed; the environment stays unmarked.
    """
    environment = ENVIRONMENTS[name]
    if is_installed(name, peers_dir) and not force:
        print(f"{name}: already installed in {peers_dir / name}")
        return
    directory = peers_dir / name
    shutil.rmtree(directory, ignore_errors=True)
    print(f"{name}: installing {' '.join(environment.requirements)} into {directory}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = str(python_of(name, peers_dir))
    subprocess.run([python, "-m", "pip", "install", "--quiet", *environment.requirements], check=True)
    subprocess.run(
        [python, "-c", "import " + ", ".join(environment.check_imports)],
        check=True,
        env={**os.environ, **dict(environment.variables), "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    (directory / MARKER).write_text(json.dumps(list(environment.requirements)))
    print(f"{name}: ready", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # argparse checks a nargs="*" default against `choices`, so names are checked here instead.
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(ENVIRONMENTS)} (default: all)")
    parser.add_argument("--force", action="store_true", help="make the environments anew")
    arguments = parser.parse_args(argv)
    names = arguments.names or list(ENVIRONMENTS)
    for name in names:
        if name not in ENVIRONMENTS:
            parser.error(f"no peer environment {name!r}; choose from {', '.join(ENVIRONMENTS)}")
    failed = []
    for name in names:
        try:
            install(name, force=arguments.force)
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
