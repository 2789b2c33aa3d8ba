"""What a process needs to create, train and checkpoint tables of a given size: the child of `table_rows.py --memory`.

    python benchmarks/table_memory.py --rows 25000000 --tables 4

Prints the peak of the process's resident size after each stage. The limit allows for a tenth more than rows and slots
take, and 1.5 GB for TensorFlow and Python themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

from measurement import RESULT_PREFIX
from targets import Target
from workload import NUM_DENSE, Workload

COPIES_ALLOWED = 1.1
FRAMEWORK_BYTES = 1.5e9
STEPS = 50
GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class MemoryResult:
    """Peaks of the resident size of one process, each up to the end of its stage.

    Args:
        rows: Of all tables together.
        table_bytes: Of rows and slots.
        imported_bytes, created_bytes, trained_bytes, saved_bytes: Peaks.
        checkpoint_bytes: Size of the files.
        create_seconds, save_seconds: How long the stages took.
        versions: Of the packages that did the work.
    """

    rows: int
    table_bytes: int
    imported_bytes: int
    created_bytes: int
    trained_bytes: int
    saved_bytes: int
    checkpoint_bytes: int
    create_seconds: float
    save_seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def limit_bytes(self) -> float:
        return COPIES_ALLOWED * self.table_bytes + FRAMEWORK_BYTES

    def target(self) -> Target:
        """The peak of the whole process against the limit."""
        return Target(
            name=f"{self.rows:,} rows: peak of create + train + checkpoint against 1.1 (rows + slots) + 1.5 GB",
            value=self.saved_bytes / GIGA,
            at_most=round(self.limit_bytes / GIGA, 3),
            unit=" GB",
        )

    def to_markdown(self) -> str:
        return "\n".join(
            [
                "| rows | rows + slots, GB | peak after import, GB | after creating | after training | after saving "
                "| limit, GB | checkpoint, GB | create, s | save, s |",
                "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
                f"| {self.rows:,} | {self.table_bytes / GIGA:.2f} | {self.imported_bytes / GIGA:.2f} "
                f"| {self.created_bytes / GIGA:.2f} | {self.trained_bytes / GIGA:.2f} | {self.saved_bytes / GIGA:.2f} "
                f"| {self.limit_bytes / GIGA:.2f} | {self.checkpoint_bytes / GIGA:.2f} | {self.create_seconds:.1f} "
                f"| {self.save_seconds:.1f} |",
                "",
                f"- {self.target()}",
            ]
        )


def resident_bytes(kind: str) -> int:
    """`VmRSS` (now) or `VmHWM` (peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {kind!r}; this benchmark needs Linux")


def measure_memory(workload: Workload, hot: Workload, optimizer: str, folder: Path) -> MemoryResult:
    """Creates the model, trains it and saves its tables, in this process.

    Args:
        workload: The tables.
        hot: The same with the few rows that training touches.
        optimizer: Of the rows.
        folder: Where the checkpoint is written; it is removed again.
    """
    from profile_step import step_of
    from side_tfdlrm import build_model, tensor_batches, versions

    from tfdlrm.embeddings.checkpoint import save_tables

    imported, start = resident_bytes("VmHWM"), time.perf_counter()
    model = build_model(workload, optimizer)
    model.build({"dense": (None, NUM_DENSE)})
    create_seconds, created = time.perf_counter() - start, resident_bytes("VmHWM")
    step = step_of(model, tensor_batches(hot))
    for index in range(STEPS):
        step(index)
    trained = resident_bytes("VmHWM")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        start = time.perf_counter()
        save_tables(model.embeddings.tables, Path(name, "tables"))
        save_seconds, saved = time.perf_counter() - start, resident_bytes("VmHWM")
        checkpoint_bytes = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
    return MemoryResult(
        rows=sum(workload.vocabulary_sizes),
        table_bytes=model.embeddings.tables.num_bytes,
        imported_bytes=imported,
        created_bytes=created,
        trained_bytes=trained,
        saved_bytes=saved,
        checkpoint_bytes=checkpoint_bytes,
        create_seconds=create_seconds,
        save_seconds=save_seconds,
        versions=versions(),
    )


def main() -> None:
    from table_rows import HOT_ROWS
    from turns import NUMBERS_DIR

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000_000, help="a table")
    parser.add_argument("--tables", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--embedding-dim", type=int, default=16)
    parser.add_argument("--optimizer", default="rowwise_adagrad", help="row optimizer")
    arguments = parser.parse_args()
    sizes = {"batch_size": arguments.batch_size, "embedding_dim": arguments.embedding_dim}
    workload = Workload(**sizes, table_rows=(arguments.rows,) * arguments.tables)
    hot = Workload(**sizes, table_rows=(min(HOT_ROWS, arguments.rows),) * arguments.tables)
    result = measure_memory(workload, hot, arguments.optimizer, NUMBERS_DIR)
    print(RESULT_PREFIX + json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
