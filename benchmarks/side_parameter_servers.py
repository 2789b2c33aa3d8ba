"""One measurement for `parameter_servers.py`: some steps of `fit` in one process, or over a cluster of this machine.

    python benchmarks/side_parameter_servers.py --workers 1 --parameter-servers 2 --max-rows 10000

Prints one RESULT line: step times; bytes that went through the servers' connections, as the kernel counts them for each
(`ss` of iproute2); processor time by kind of process; and what the step had to send.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from measurement import RESULT_PREFIX, ChunkTimer
from workload import Workload, add_workload_arguments, workload_from_arguments

BYTES_PER_VALUE = 4
WARMUP_CALLS = 2  # of `fit`: the first traces
ROLES = ("coordinator", "worker", "ps")


@dataclass(frozen=True, kw_only=True)
class ClusterResult:
    """What one process measured.

    Args:
        workers, parameter_servers: Processes; 0 for all in one.
        step_seconds: Median of chunks.
        wire_bytes: Through the servers' connections, a step.
        unique_ids: A step, over all tables.
        dense_bytes: Of the dense weights.
        embedding_dim: Width of the rows.
        cpu_seconds: A step, by kind of process.
        others_share: Share of the machine's CPU time that went to processes that are none of these.
        versions: Of the packages that did the work.
    """

    workers: int
    parameter_servers: int
    step_seconds: float
    wire_bytes: float
    unique_ids: float
    dense_bytes: int
    embedding_dim: int
    cpu_seconds: dict[str, float]
    others_share: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def needed_bytes(self) -> float:
        """Each unique id and row there, each id and sum back; the dense weights there and their gradients back."""
        return self.unique_ids * (8 + 2 * BYTES_PER_VALUE * self.embedding_dim) + 2 * self.dense_bytes


def counted_bytes(pids: Sequence[int]) -> int:
    """Bytes that processes of this machine have sent and received so far, whoever opened the connection.

    Raises:
        RuntimeError: `ss` is not there or says something else.
    """
    try:
        shown = subprocess.run(["ss", "-tinpHO"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"the kernel's counts cannot be read: {error}. Install iproute2, which has `ss`.") from error
    return parse_counts(shown, pids)


def parse_counts(shown: str, pids: Sequence[int]) -> int:
    """The sum of what `ss -tinpHO` shows for the connections of some processes."""
    total = 0
    for line in shown.splitlines():
        if any(int(pid) in pids for pid in re.findall(r"\bpid=(\d+)", line)):
            total += sum(int(number) for number in re.findall(r"\bbytes_(?:sent|received):(\d+)", line))
    return total


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, all its threads together."""
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unique_ids(workload: Workload) -> float:
    """Mean over the batches."""
    import numpy as np

    return statistics.fmean(
        sum(len(np.unique(batch.ids[:, columns])) for columns in workload.id_columns) for batch in workload.batches()
    )


def measure_cluster(workload: Workload, arguments: argparse.Namespace) -> ClusterResult:
    """Makes the model where it belongs and times `fit`."""
    import keras
    from side_tfdlrm import build_model, stacked_batches, steps_per_execution, versions

    from tfdlrm.distribute import LocalCluster, parameter_server

    pids = {"coordinator": [os.getpid()]}
    with contextlib.ExitStack() as stack:
        scope = contextlib.nullcontext()
        if arguments.workers:
            local = LocalCluster(arguments.workers, arguments.parameter_servers, show=None)
            cluster = stack.enter_context(local)
            scope = parameter_server(cluster, synchronous=arguments.synchronous).scope()
            for name, process in local.processes.items():
                pids.setdefault(name.partition(" ")[0], []).append(process.pid)
        steps_per_lap = 1 if arguments.workers else steps_per_execution(workload)
        with scope:
            model = build_model(workload, arguments.optimizer, steps_per_execution=steps_per_lap)
            model.build()
        timer = ChunkTimer(steps_per_lap)
        laps = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: timer.lap())
        data = stacked_batches(workload)
        for _ in range(WARMUP_CALLS):
            model.fit(data, steps_per_epoch=workload.num_batches, verbose=0, shuffle=False)
        before = {role: sum(map(cpu_seconds, pids.get(role, ()))) for role in ROLES}
        servers = pids.get("ps", [])
        wire = counted_bytes(servers) if servers else 0
        timer.start()
        model.fit(data, steps_per_epoch=arguments.steps, verbose=0, shuffle=False, callbacks=[laps])
        after = {role: sum(map(cpu_seconds, pids.get(role, ()))) for role in ROLES}
        wire = (counted_bytes(servers) if servers else 0) - wire
        used = {role: after[role] - before[role] for role in ROLES}
        own = sum(used.values()) - used["coordinator"]
        elapsed = timer.num_steps * statistics.fmean(timer.step_seconds)
        found = ClusterResult(
            workers=arguments.workers,
            parameter_servers=arguments.parameter_servers,
            step_seconds=statistics.median(timer.step_seconds),
            wire_bytes=wire / arguments.steps,
            unique_ids=unique_ids(workload),
            dense_bytes=BYTES_PER_VALUE * sum(int(weight.shape.num_elements()) for weight in dense_variables(model)),
            embedding_dim=workload.embedding_dim,
            cpu_seconds={role: seconds / arguments.steps for role, seconds in used.items()},
            # the clock counts the cluster's processes as others
            others_share=max(0.0, timer.others_share - own / elapsed / (os.cpu_count() or 1)),
            versions=versions(),
        )
        print(RESULT_PREFIX + json.dumps(asdict(found)), flush=True)
        return found


def dense_variables(model: Any) -> list[Any]:
    """What Keras trains."""
    import tensorflow as tf

    from tfdlrm.layers.table_variable import dense_weights

    return [tf.convert_to_tensor(weight) for weight in dense_weights(model.trainable_variables)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload_arguments(parser)
    parser.add_argument("--workers", type=int, default=0, help="0 for one process with everything")
    parser.add_argument("--parameter-servers", type=int, default=0)
    parser.add_argument("--synchronous", action="store_true")
    parser.add_argument("--optimizer", default="rowwise_adagrad", help="row optimizer")
    parser.add_argument("--steps", type=int, default=96, help="a multiple of --num-batches")
    arguments = parser.parse_args()
    measure_cluster(workload_from_arguments(arguments), arguments)
    sys.stdout.flush()
    os._exit(0)  # the cluster's end would be complained of


if __name__ == "__main__":
    main()
