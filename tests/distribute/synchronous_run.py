"""`python -m tests.distribute.synchronous_run 1x1 2x3 ...`: one process against synchronous clusters, as JSON.

Each is WORKERS x SERVERS, up to 3 of either.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.distribute import every_option
from tests.distribute.in_process import part_of, start_cluster
from tfdlrm.distribute import parameter_server
from tfdlrm.embeddings.checkpoint import restore_tables, save_tables
from tfdlrm.models.base import tables_of

MAX_WORKERS = MAX_SERVERS = 3


def run(strategy: Any, expected: dict[str, Any], prefix: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Trains, evaluates and predicts under a strategy: how far that is from `expected`, and the tables' arrays."""
    with strategy.scope():
        model = every_option.build_model()
    history = model.fit(every_option.dataset(), epochs=1, verbose=0).history
    found = every_option.arrays(model)
    difference = {}
    for name, array in expected["arrays"].items():
        largest = np.max(np.abs(array))
        difference[name] = float(np.max(np.abs(found[name] - array)) / (largest or 1.0))
    save_tables(tables_of(model)[0], prefix)
    scores = model.predict(every_option.dataset(3), verbose=0)
    result = {
        "names": sorted(found) == sorted(expected["arrays"]),
        "difference": difference,
        "half": int(np.count_nonzero(found["half/rows"] != expected["arrays"]["half/rows"])),
        "history": history,
        "scores": float(np.max(np.abs(scores - expected["scores"]))),
        "measured": model.evaluate(every_option.dataset(3), verbose=0),
        "counts": model.embeddings.id_policy_counts,
        "updates": int(tables_of(model)[0].iterations),
        "reasons": tables_of(model)[0].plan.reasons,
        "traced": sorted(name for name, _ in strategy.training_loop(model)._step.functions),
    }
    return result, {name: array.tobytes() for name, array in found.items() if not name.startswith("dense")}


def restored(strategy: Any, prefix: Path) -> dict[str, bytes]:
    """The tables' arrays, as another model under the strategy reads them."""
    with strategy.scope():
        again = every_option.build_model()
        again.embeddings.build()
    restore_tables(tables_of(again)[0], prefix)
    return {name: array.tobytes() for name, array in every_option.table_arrays(again).items()}


def main(sizes: list[tuple[int, int]]) -> None:
    alone = every_option.build_model()
    first = {"history": alone.fit(every_option.dataset(), epochs=1, verbose=0).history}
    first["arrays"] = every_option.arrays(alone)
    first["scores"] = alone.predict(every_option.dataset(3), verbose=0)
    first["measured"] = alone.evaluate(every_option.dataset(3), verbose=0)
    first["counts"] = alone.embeddings.id_policy_counts
    results: dict[str, Any] = {name: first[name] for name in ("history", "measured", "counts")}

    strategy = parameter_server(start_cluster(MAX_WORKERS, MAX_SERVERS), synchronous=True, min_shard_bytes=0)
    with TemporaryDirectory() as folder:
        for workers, servers in sizes:
            part_of(strategy, workers, servers)
            found, arrays = run(strategy, first, Path(folder, "tables"))
            part_of(strategy, 1, servers % MAX_SERVERS + 1)
            found["restored"] = restored(strategy, Path(folder, "tables")) == arrays
            results[f"{workers}x{servers}"] = found
    print(json.dumps(results))


if __name__ == "__main__":
    main([(int(size[0]), int(size[2])) for size in sys.argv[1:]])
    sys.stdout.flush()
    os._exit(0)  # the threads of the cluster would wait for each other
