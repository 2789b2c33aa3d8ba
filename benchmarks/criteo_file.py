"""The rows of a workload as a file in Criteo's text format: label, 13 integers, 26 hex strings, tab-separated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from workload import Batch, Workload


def criteo_file(workload: Workload, folder: Path) -> Path:
    """The file of a workload's rows, `batch_size * num_batches` of them; written where it is not there yet.

    Args:
        workload: One id a feature; the batches in their order are the rows.
        folder: Where files are kept, by the sizes of the workload.

    Raises:
        ValueError: The workload has bags of several ids, which the format cannot hold.
    """
    if workload.hotness is not None:
        raise ValueError(f"criteo_file: the format holds one id a feature, not hotness={workload.hotness}")
    cap = "full" if workload.max_rows is None else str(workload.max_rows)
    sizes = f"{workload.batch_size}x{workload.num_batches}-{cap}-{workload.seed}"
    path = folder / f"criteo-{sizes}.tsv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with unfinished.open("w") as file:
            for batch in workload.batches():
                file.writelines(criteo_lines(batch))
        unfinished.rename(path)
    return path


def criteo_lines(batch: Batch) -> Iterator[str]:
    """The rows of a batch as lines; the integers are those whose log(x + 1) is nearest below the dense values."""
    integers = np.floor(np.expm1(batch.dense.astype(np.float64))).astype(np.int64).tolist()
    labels = batch.labels.astype(np.int64).tolist()
    for label, counts, ids in zip(labels, integers, batch.ids.tolist(), strict=True):
        yield "\t".join([str(label), *map(str, counts), *map("%08x".__mod__, ids)]) + "\n"
