"""`tfdlrm server`: a worker or parameter server of a cluster."""

from __future__ import annotations

import argparse
from typing import Any


def add_command(commands: Any) -> None:
    """Adds `server`."""
    parser = commands.add_parser(
        "server",
        help="run a worker or parameter server of a cluster",
        description="Run one process of a cluster. The script that trains is its coordinator. Without flags "
        "the cluster and the task come from TF_CONFIG.",
    )
    parser.add_argument("--cluster", metavar="FILE", help="YAML with worker: and ps: lists of host:port")
    parser.add_argument("--job", choices=("worker", "ps"), help="what this process is")
    parser.add_argument("--task", type=int, metavar="N", help="its number in the list, from 0")
    parser.add_argument("--bind", metavar="HOST", help="address to listen at; default: the one in the cluster")
    parser.add_argument(
        "--allow-any-address",
        action="store_true",
        help="let --bind be 0.0.0.0; whoever reaches the port can run code in this process",
    )
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    parser.add_argument("--fingerprint", help=argparse.SUPPRESS)  # given by the process to itself
    parser.set_defaults(run=_run, needs_tensorflow=False)


def _run(arguments: argparse.Namespace) -> None:
    from tfdlrm.cli.quiet_start import import_tensorflow
    from tfdlrm.distribute.cluster import Cluster, task_from_environment
    from tfdlrm.distribute.server import run_server, settle

    cluster = Cluster.load(arguments.cluster)
    job, task = arguments.job, arguments.task
    if job is None or task is None:
        if job is not None or task is not None or arguments.cluster is not None:
            raise ValueError("server: give --cluster, --job and --task, or none of them: then TF_CONFIG says all.")
        job, task = task_from_environment()
    where = settle(
        cluster,
        job,
        task,
        bind=arguments.bind,
        allow_any_address=arguments.allow_any_address,
        fingerprint=arguments.fingerprint,
    )
    import_tensorflow()
    run_server(cluster, job, task, where, with_parent=arguments.with_parent)
