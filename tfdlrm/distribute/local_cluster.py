"""A whole cluster on this machine: every worker and parameter server a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tfdlrm.distribute.cluster import Cluster

STOP_SECONDS = 10.0
MAX_PROCESSES = 64  # of a kind; each takes half a gigabyte
LOOPBACK = "127.0.0.1"


def print_line(who: str, line: str) -> None:
    """A line of a process's log on stderr, behind its name."""
    print(f"[{who}] {line}", file=sys.stderr, flush=True)


class LocalCluster:
    """Processes `tfdlrm server` on the loopback address, at ports that were free.

    Args:
        workers, parameter_servers: how many.
        show: called with a process's name and each line of its output; None shows nothing.
        environment: of the processes; None for this one's.

    Raises:
        ValueError: there is none of a kind.

    Example:
        >>> with LocalCluster(workers=2, parameter_servers=2) as cluster:
        ...     strategy = tfdlrm.distribute.parameter_server(cluster)
    """

    def __init__(
        self,
        workers: int = 1,
        parameter_servers: int = 1,
        *,
        show: Callable[[str, str], None] | None = print_line,
        environment: dict[str, str] | None = None,
    ) -> None:
        if not (1 <= workers <= MAX_PROCESSES and 1 <= parameter_servers <= MAX_PROCESSES):
            raise ValueError(
                f"LocalCluster: {workers} workers, {parameter_servers} servers. Give 1 to {MAX_PROCESSES} of each: "
                "all of them are processes of this machine."
            )
        self._show = show
        self._environment = dict(os.environ) if environment is None else environment
        self._reserved = [reserve_port() for _ in range(workers + parameter_servers)]
        addresses = [f"{LOOPBACK}:{held.getsockname()[1]}" for held in self._reserved]
        self.cluster = Cluster(workers=tuple(addresses[:workers]), parameter_servers=tuple(addresses[workers:]))
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._ending = False

    def __enter__(self) -> Cluster:
        folder = Path(tempfile.mkdtemp(prefix="tfdlrm-cluster-"))
        self.file = folder / "cluster.yaml"
        self.cluster.save(self.file)
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            for job, count in (("worker", len(self.cluster.workers)), ("ps", len(self.cluster.parameter_servers))):
                for task in range(count):
                    self.start(job, task)
            stack.pop_all()
        return self.cluster

    def __exit__(self, *error: object) -> None:
        self._end()

    def start(self, job: str, task: int) -> None:
        """Starts one process; also one that has ended."""
        name = f"{job} {task}"
        command = [sys.executable, "-m", "tfdlrm", "server", "--cluster", str(self.file)]
        process = subprocess.Popen(
            [*command, "--job", job, "--task", str(task), "--with-parent"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal is for the coordinator: it still needs its servers
        )
        self.processes[name] = process
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if self._show is not None:
                    self._show(name, line.rstrip("\n"))
        code = process.wait()
        if self._show is not None and code and not self._ending:
            self._show(name, f"ended {_how(code)}")

    def _end(self) -> None:
        """Stops all, first asking, then not."""
        self._ending = True
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            if process.poll() is None:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join()
        for held in self._reserved:
            held.close()
        self.file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.file.parent.rmdir()


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    why = {"SIGBUS": ": a file that it reads was cut short", "SIGKILL": ": by somebody, or for want of memory"}
    return f"by {name}{why.get(name, '')}"


def reserve_port() -> socket.socket:
    """A socket that keeps a free port of the loopback address for a server that will listen there."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    return held


@contextlib.contextmanager
def reserved_address() -> Iterator[str]:
    """`127.0.0.1:port` that nobody else takes meanwhile."""
    with reserve_port() as held:
        yield f"{LOOPBACK}:{held.getsockname()[1]}"
