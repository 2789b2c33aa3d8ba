"""`python -m tests.distribute.training_run`: `train` over 2 x 2 processes beside `train` in one, as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.distribute.in_process import start_cluster
from tests.training.small_run import StopAfter, saved_arrays, small_config, small_splits, with_model
from tfdlrm.config import ExperimentConfig, ParameterServerConfig
from tfdlrm.distribute import parameter_server
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.run import TrainResult, train

OPTIONS = {"min_shard_bytes": 0, "max_staleness": 4}


def config(**options: Any) -> ExperimentConfig:
    """Nothing that draws by chance or looks at a whole batch: parts of a batch are then as good."""
    whole = with_model(small_config(deterministic=False, **options), dropout=0.0, normalization=None)
    return replace(whole, train=replace(whole.train, parameter_server=ParameterServerConfig(**OPTIONS)))


def difference(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    """Of the largest differences, each over its array's largest value, the largest; random states apart."""
    assert list(left) == list(right)
    pairs = [(left[key], right[key]) for key in left if not key.startswith("seeds/")]
    return max(float(np.max(np.abs(a - b)) / max(1e-3, float(np.max(np.abs(a))))) for a, b in pairs)


def results_of(result: TrainResult) -> dict[str, Any]:
    return {"history": result.history, "test": result.test, "interrupted_by": result.interrupted_by}


def saved_positions(folder: Path) -> list[list[float]]:
    """Of each checkpoint: steps by its state and by its optimizer; rows of the epoch by both of them."""
    found = []
    checkpoints = Checkpoints(folder / "checkpoints")
    for name in checkpoints.names():
        state, saved = checkpoints.read_state(name), saved_arrays(folder, name)
        (steps,) = (value for key, value in saved.items() if key.startswith("optimizer/") and "iteration" in key)
        counted = next(value for key, value in saved.items() if key.startswith("metrics/") and key.endswith("count"))
        rows = min(state.batch * 16, state.rows) if state.batch else state.rows
        found.append([state.step, int(steps), rows, float(counted)])
    return found


def main(folder: Path) -> None:
    data = small_splits(test=True)
    alone = results_of(train(config(), folder / "alone", data=data, verbose=0))
    strategy = parameter_server(start_cluster(2, 2), synchronous=True, **OPTIONS)
    over = {"data": data, "strategy": strategy, "verbose": 0}
    found: dict[str, Any] = {"alone": alone}

    found["synchronous"] = results_of(train(config(), folder / "sync", **over))
    found["difference"] = difference(saved_arrays(folder / "alone"), saved_arrays(folder / "sync"))

    # asked to stop in the second epoch on two servers, and gone on with in one process
    stopped = train(config(), folder / "moved", callbacks=[StopAfter(14, signal.SIGTERM)], **over)
    found["stopped"] = stopped.interrupted_by
    found["stopped at"] = saved_positions(folder / "moved")[-1]
    found["moved"] = results_of(train(config(), folder / "moved", data=data, resume=True, verbose=0))
    found["moved difference"] = difference(saved_arrays(folder / "alone"), saved_arrays(folder / "moved"))

    strategy.options = replace(strategy.options, synchronous=False)
    often = config(checkpoint_every_steps=3, keep_checkpoints=99)
    stopped = train(often, folder / "async", callbacks=[StopAfter(7, signal.SIGTERM)], **over)
    found["positions"] = saved_positions(folder / "async")
    found["asynchronous"] = results_of(train(often, folder / "async", resume=True, **over))
    found["all positions"] = saved_positions(folder / "async")
    print(json.dumps(found))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
    sys.stdout.flush()
    os._exit(0)  # the threads of the cluster would wait for each other
