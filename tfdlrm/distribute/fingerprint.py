"""What every process of a cluster must have in common with the coordinator, and what the coordinator reads of it.

A server's fingerprint is the last word of its command line, which the coordinator reads through TensorFlow itself, as
it reads how much memory there is: no further port, and nothing of the process's environment.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tfdlrm import __version__
from tfdlrm.distribute.binding import answers
from tfdlrm.distribute.cluster import Cluster, Process
from tfdlrm.native import build

if TYPE_CHECKING:
    import tensorflow as tf

FLAG = "--fingerprint"
CGROUP = "/sys/fs/cgroup"
_MEANINGS = {
    "tfdlrm": "tfdlrm {theirs} runs there, and tfdlrm {ours} here. Install the same version everywhere",
    "tensorflow": "TensorFlow {theirs} runs there, and TensorFlow {ours} here. Install the same version everywhere",
    "kernels": "its native kernels are of other sources than those here. Install the same tfdlrm everywhere",
    "cluster": "it was started with other addresses of workers and servers, or in another order. Give every process "
    "the same cluster",
}


def fingerprint(cluster: Cluster) -> str:
    """Versions, the kernels' sources and the addresses of workers and servers, as JSON without spaces."""
    addresses = json.dumps([cluster.workers, cluster.parameter_servers])
    parts = {
        "tfdlrm": __version__,
        "tensorflow": version("tensorflow"),
        "kernels": build.sources_digest().hexdigest()[:12],
        "cluster": hashlib.sha256(addresses.encode()).hexdigest()[:12],
    }
    return json.dumps(parts, separators=(",", ":"))


def refuse_strangers(cluster: Cluster) -> None:
    """Compares every process's fingerprint with that of the coordinator, which is connected.

    A process that has none, because `tfdlrm server` did not start it, is taken as it is.

    Raises:
        ValueError: names the process, its address, and what differs.
    """
    ours = json.loads(fingerprint(cluster))
    for process in cluster.processes():
        theirs = _fingerprint_of(process)
        for part, value in ours.items() if theirs else ():
            if theirs.get(part) != value:
                meaning = _MEANINGS[part].format(theirs=theirs.get(part), ours=value)
                raise ValueError(f"{process}: {meaning}.")


def have_kernels(cluster: Cluster, kernels: Any) -> bool:
    """Whether every process has the kernels; says so once where one has not.

    Args:
        cluster: of all processes.
        kernels: the library's functions.
    """
    import tensorflow as tf

    for process in cluster.processes():
        try:
            with tf.device(process.device):
                kernels.tfdlrm_interact(tf.zeros([1, 4]), tf.zeros([1, 1, 4]), head=True, itself=False, width=5)
        except tf.errors.NotFoundError:
            print(
                f"{process} has no native kernels: the cluster goes on with TensorFlow's own ops, the same numbers, "
                "several times slower. `tfdlrm native build` there shows why.",
                file=sys.stderr,
                flush=True,
            )
            return False
    return True


def have_rows(cluster: Cluster, origin: str) -> bool:
    """Whether every worker that answers can read a dataset's rows for itself; says so once where one cannot.

    Args:
        cluster: of all processes.
        origin: of the rows.

    Raises:
        ValueError: a worker would read other rows; names it and the folder.
    """
    import tensorflow as tf

    from tfdlrm.data.origins import OtherDataError, why_not_there

    for worker in cluster.processes():
        if worker.job != "worker" or not answers(worker.address):
            continue
        try:
            why = why_not_there(origin, worker.device)
        except OtherDataError as error:
            raise ValueError(f"{worker}: {error}.") from error
        except tf.errors.OpError as error:
            why = f"not started by tfdlrm server ({type(error).__name__})"
        if why:
            print(
                f"{worker} cannot read the rows itself: {why.rstrip('.')}. The coordinator reads them and sends them.",
                file=sys.stderr,
                flush=True,
            )
            return False
    return True


def available_bytes(process: Process) -> int | None:
    """Memory that a process's machine, or its container, can still give; None where that cannot be read."""
    files = ("/proc/meminfo", f"{CGROUP}/memory.max", f"{CGROUP}/memory.stat")
    return parse_available(*(_read(process, path) or b"" for path in files))


def parse_available(machine: bytes, limit: bytes, used: bytes) -> int | None:
    """The least of what a machine has available and what a container's limit leaves; in bytes.

    Args:
        machine: of `/proc/meminfo`.
        limit, used: of the cgroup's `memory.max` and `memory.stat`; empty where there is none.
    """
    found = []
    for line in machine.splitlines():
        if line.startswith(b"MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    if limit.strip().isdigit():
        held = [int(line.split()[1]) for line in used.splitlines() if line.startswith(b"anon ")]
        found.append(max(0, int(limit) - sum(held)))
    return min(found, default=None)


def _fingerprint_of(process: Process) -> dict[str, Any]:
    words = (_read(process, "/proc/self/cmdline") or b"").decode("utf-8", "replace").split("\0")
    if FLAG not in words[:-1]:
        return {}
    try:
        found = json.loads(words[words.index(FLAG) + 1])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(process: Process, path: str) -> bytes | None:
    import tensorflow as tf

    try:
        with tf.device(process.device):
            # the runtime writes a warning about a file that is not there
            if not len(tf.io.matching_files(path)):
                return None
            text: tf.Tensor = tf.io.read_file(path)
        return bytes(text.numpy())
    except tf.errors.OpError:
        return None  # not Linux
