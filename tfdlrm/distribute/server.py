"""`tfdlrm server`: one worker or parameter server of a cluster, from its start to its end."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import NoReturn

from tfdlrm.checks import quoted
from tfdlrm.distribute import binding
from tfdlrm.distribute.cluster import ANY_ADDRESSES, Cluster
from tfdlrm.distribute.fingerprint import FLAG as FINGERPRINT_FLAG
from tfdlrm.distribute.fingerprint import fingerprint as fingerprint_of
from tfdlrm.stop_signals import StopSignals

POLL_SECONDS = 0.2
MIN_INTER_OP_THREADS = 8
"""Functions that wait for another process hold a thread each: with too few of them all wait for ever."""


def settle(
    cluster: Cluster, job: str, task: int, *, bind: str | None, allow_any_address: bool, fingerprint: str | None
) -> str:
    """Sees to it that this process's server will listen at one address only, and that its command line ends with its
    fingerprint: starts the process again for that, once.

    TensorFlow's runtime trusts whoever reaches its port: it runs what it is sent.

    Args:
        cluster: of all processes.
        job: "worker" or "ps".
        task: number in the job, from 0.
        bind: address of this machine to listen at; None for the one that the cluster names.
        allow_any_address: let `bind` be 0.0.0.0 or ::.
        fingerprint: of the command line; None the first time.

    Returns:
        `address:port`.

    Raises:
        ValueError: there is no such task, or the address is not allowed; says what to give.
        OSError: the port is in use, or the address is none of this machine.
    """
    host, port = _own_address(cluster, job, task)
    address = binding.resolve(bind or host)
    is_any = address in ANY_ADDRESSES
    if is_any and not allow_any_address:
        raise ValueError(
            f"{job} {task}: {bind or host} lets every machine that reaches this one run code here, because "
            "TensorFlow's runtime does what it is sent. Give the address of one interface, or --allow-any-address."
        )
    _refuse_a_taken_port(job, task, address, port)
    if fingerprint is None:
        binding.start_again({} if is_any else _bound(port, address), [FINGERPRINT_FLAG, fingerprint_of(cluster)])
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _own_address(cluster: Cluster, job: str, task: int) -> tuple[str, int]:
    addresses = {"worker": cluster.workers, "ps": cluster.parameter_servers}.get(job)
    if addresses is None:
        raise ValueError(f"job {quoted(job)} is no server's. Use worker or ps (the coordinator is your script).")
    if not 0 <= task < len(addresses):
        raise ValueError(f"{job} {task} is not in the cluster, which has {len(addresses)}: {', '.join(addresses)}.")
    return binding.split_address(addresses[task])


def _refuse_a_taken_port(job: str, task: int, address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            raise OSError(
                f"{job} {task}: {address}:{port} cannot be bound: {error.strerror}. Perhaps this server runs already; "
                "or the address is none of this machine: then give --bind."
            ) from error


def _bound(port: int, address: str) -> dict[str, str]:
    """The environment of a process whose server listens there."""
    try:
        return {**binding.preloading(), binding.BIND: f"{port} {address}"}
    except OSError as error:
        raise OSError(
            f"the socket cannot be bound to {address} alone: {error}. With --bind 0.0.0.0 --allow-any-address no "
            "compiler is needed, and every interface is listened at."
        ) from error


def run_server(cluster: Cluster, job: str, task: int, where: str, *, with_parent: bool = False) -> NoReturn:
    """Serves until SIGTERM or SIGINT, and ends the process with exit code 0.

    Args:
        cluster, job, task: as for `settle`.
        where: of `settle`.
        with_parent: also end when the process that started this one has ended.
    """
    import tensorflow as tf

    from tfdlrm.data import origins  # noqa: F401  what the coordinator lets a worker read by
    from tfdlrm.native import loader

    parent = os.getppid()
    with StopSignals(second_acts_at_once=False) as signals:
        loader.library()  # before the server: its list of ops is fixed then
        threads = max(MIN_INTER_OP_THREADS, 2 * len(cluster.addresses()))
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=threads)
        spec = tf.train.ClusterSpec(cluster.jobs())
        # has no end of its own: its threads would be waited for
        try:
            server = tf.distribute.Server(spec, job_name=job, task_index=task, protocol="grpc", config=config)
        except tf.errors.OpError as error:
            # it was free when this process began: two of one task were started side by side
            raise OSError(
                f"{job} {task}: {where} cannot be listened at: {error.message}. Perhaps this server runs already."
            ) from error
        print(f"tfdlrm server: {job} {task} at {where}", flush=True)
        while signals.received is None and not (with_parent and os.getppid() != parent):
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(BrokenPipeError):  # who read it may have ended as well
            print(f"tfdlrm server: {job} {task} stops: {signals.received or 'its parent has ended'}", flush=True)
        del server
        os._exit(0)
