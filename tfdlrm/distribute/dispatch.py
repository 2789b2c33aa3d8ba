"""Hands work to workers and waits for it, in whatever order it is done."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfdlrm.data.origins import RowsUnreadableError
from tfdlrm.distribute.binding import answers
from tfdlrm.distribute.cluster import Cluster
from tfdlrm.distribute.errors import ServerLostError, WorkersLostError

LOST_SECONDS = 60.0
"""How long a training without any worker waits for one."""

LOOK_SECONDS = 2.0
_POLL_SECONDS = 0.02
_CONTEXT_GONE = "Unable to find a context_id"


_HAPPENED = re.compile(r"[Ff]ailed to connect|reset by peer|Socket closed|UNAVAILABLE|context_id|refused")
_EAGER_ASSERTION = re.compile(r"Summarized data: b(['\"])(.*?)\1(?:\n|$)", re.DOTALL)
_UNREADABLE = re.compile(rf"{RowsUnreadableError.__name__}: (.*?)\n(?:Traceback|\n)", re.DOTALL)
_WORKER = re.compile(r"job:worker/replica:0/task:(\d+)")
_ASSERTION = re.compile(r"assertion failed: \[(.*?)\]\n", re.DOTALL)


class Dispatcher:
    """Work under way on the workers. TensorFlow's coordinator gives a lost worker's work to another one.

    Args:
        coordinator: of the strategy.
    """

    def __init__(self, coordinator: tf.distribute.coordinator.ClusterCoordinator):
        self._coordinator = coordinator
        self._cluster: Cluster = coordinator.strategy.cluster
        self._values: dict[int, Any] = {}

    @property
    def num_outstanding(self) -> int:
        """Work handed out and not finished."""
        return len(self._values)

    def submit(self, key: int, function: Any, args: tuple) -> None:
        """Hands out work.

        Args:
            key: to know the result by; new.
            function: a concrete function.
            args: its arguments.
        """
        self._values[key] = self._coordinator.schedule(function, args=args)

    def wait(self) -> list[tuple[int, Any]]:
        """Keys and results of what has finished; waits for at least one.

        Raises:
            WorkersLostError: no worker has answered for `LOST_SECONDS`.
            tf.errors.OpError: what the work itself raised.
        """
        watch = _WorkerWatch(self._cluster)
        while True:
            done = [key for key, value in self._values.items() if value._status_available_event.is_set()]
            if done:
                return [(key, self._result(self._values.pop(key))) for key in done]
            if self._coordinator._cluster.closure_queue._error is not None:
                self._coordinator.join()  # raises it
            next(iter(self._values.values()))._status_available_event.wait(_POLL_SECONDS)
            watch.look()

    def _result(self, value: Any) -> Any:
        try:
            return value.get()
        except Exception:
            # the first error of all; it cancelled the others, and the coordinator gives it once
            self._coordinator.join()
            raise


class _WorkerWatch:
    """While nothing finishes: looks whether there is a worker left to wait for."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._lost_since: float | None = None

    def look(self) -> None:
        """Says once that no worker answers.

        Raises:
            WorkersLostError: for `LOST_SECONDS`.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if any(answers(address) for address in self._cluster.workers):
            self._lost_since = None
            return
        gone = ", ".join(str(process) for process in self._cluster.processes() if process.job == "worker")
        if self._lost_since is None:
            self._lost_since = now
            print(f"no worker is left: {gone}. Waiting {LOST_SECONDS:g} s for one.", file=sys.stderr, flush=True)
        elif now - self._lost_since > LOST_SECONDS:
            raise WorkersLostError(
                f"no worker is left for {LOST_SECONDS:g} s: {gone}. Start them again, and the training from the last "
                "checkpoint."
            )


def _reason(text: str) -> str:
    """Of an error's lines the one that says what happened, with the address where it has one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if _HAPPENED.search(line)]
    return min(told or lines, key=lambda line: "ipv4:" not in line and "ipv6:" not in line)[:300].rstrip(".")


@contextlib.contextmanager
def explaining(cluster: Cluster) -> Iterator[None]:
    """What TensorFlow raises inside is raised as what it means for the cluster.

    Raises:
        ServerLostError: a parameter server is gone.
        RowsUnreadableError: a worker cannot read the rows any longer.
        tf.errors.InvalidArgumentError: as on one machine.
    """
    try:
        yield
    except Exception as error:
        meaning = _explained(error, cluster)
        if meaning is error:
            raise
        raise meaning from error


def _explained(error: Exception, cluster: Cluster) -> Exception:
    """The error itself, or what it means for the cluster."""
    if isinstance(error, (ServerLostError, WorkersLostError, RowsUnreadableError)):
        return error
    text = str(error)
    lost = isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError)) or _HAPPENED.search(text)
    if lost and ("job:ps" in text or _CONTEXT_GONE in text):
        gone = [
            str(server)
            for server in cluster.servers()
            if re.search(rf"{re.escape(server.address)}(?!\d)", text) or not answers(server.address)
        ]
        return ServerLostError(
            f"{', '.join(gone) or 'a parameter server'} is gone: {_reason(text)}. Its rows are those of the last "
            "checkpoint: start it again, and the training from there (--resume)."
        )
    if found := _UNREADABLE.search(text):
        task = _WORKER.search(text)
        worker = f"worker {task[1]} at {cluster.workers[int(task[1])]}: " if task else ""
        return RowsUnreadableError(f"{worker}{found[1]}")
    if isinstance(error, tf.errors.InvalidArgumentError):
        # as on one machine, without the graph and the network around it
        if found := _ASSERTION.search(text):
            return tf.errors.InvalidArgumentError(None, None, re.sub(r"\\+'", "'", found[1]))
        if found := _EAGER_ASSERTION.search(text):
            return tf.errors.InvalidArgumentError(None, None, found[2])
    return error
