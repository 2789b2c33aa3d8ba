"""Clusters whose workers and servers are threads of this process; for scripts that tests start as processes.

Connecting to a cluster takes the process's earlier variables away, so pytest itself never does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start_cluster(num_workers: int, num_servers: int):  # type: ignore[no-untyped-def]
    """A `Cluster` whose servers run in this process."""
    import tensorflow as tf

    from tfdlrm.distribute.cluster import Cluster
    from tfdlrm.distribute.local_cluster import LOOPBACK, reserve_port
    from tfdlrm.native import loader

    loader.library()
    held = [reserve_port() for _ in range(num_workers + num_servers)]
    addresses = [f"{LOOPBACK}:{one.getsockname()[1]}" for one in held]
    cluster = Cluster(workers=tuple(addresses[:num_workers]), parameter_servers=tuple(addresses[num_workers:]))
    # remote functions wait for each other: with fewer threads than that they wait for ever
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    spec = tf.train.ClusterSpec(cluster.jobs())
    for job, count in (("worker", num_workers), ("ps", num_servers)):
        for task in range(count):
            _KEPT.append(tf.distribute.Server(spec, job_name=job, task_index=task, protocol="grpc", config=config))
    return cluster


_KEPT: list = []


def part_of(strategy, num_workers: int, num_servers: int) -> None:  # type: ignore[no-untyped-def]
    """Makes a strategy use the first workers and servers of its cluster only: a process is connected to one cluster."""
    from tfdlrm.distribute.cluster import Cluster

    whole = strategy.__dict__.setdefault("whole_cluster", strategy.cluster)
    strategy.cluster = Cluster(whole.workers[:num_workers], whole.parameter_servers[:num_servers])
    strategy._num_workers, strategy._num_ps = num_workers, num_servers
    strategy._cluster_coordinator = None


def run_script(module: str, *arguments: object, timeout: float = 600) -> str:
    """Runs `python -m module`, and gives back what it printed.

    Raises:
        AssertionError: it failed; with its last lines.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CONFIG", None)
    found = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert found.returncode == 0, f"{module} {arguments}: exit {found.returncode}\n{found.stderr[-4000:]}"
    return found.stdout
