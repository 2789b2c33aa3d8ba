"""Which processes make up a cluster, from TF_CONFIG, a dict, a YAML file or lists of hosts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfdlrm.checks import hint, quoted
from tfdlrm.files import read_text
from tfdlrm.yaml_text import parse_yaml

TF_CONFIG = "TF_CONFIG"
JOBS = ("chief", "worker", "ps")
_ADDRESS = re.compile(r"^(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})$")
ANY_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104


class Process(NamedTuple):
    """A worker or parameter server: its job, its number there, and `host:port`."""

    job: str
    task: int
    address: str

    def __str__(self) -> str:
        return f"{self.job} {self.task} at {self.address}"

    @property
    def device(self) -> str:
        """Its processor, as TensorFlow calls it."""
        return f"/job:{self.job}/replica:0/task:{self.task}/device:CPU:0"


@dataclass(frozen=True)
class Cluster:
    """Addresses `host:port` of every process, in order of their numbers.

    Args:
        workers: they compute; at least one.
        parameter_servers: they hold tables and dense weights; at least one.
        coordinator: where the user's script can be reached by the others; None for a free port of the loopback address,
            which suffices where everything runs on one machine.

    Raises:
        ValueError: a job is empty, an address is none or is given twice.

    Example:
        >>> Cluster(workers=("10.0.0.1:2222",), parameter_servers=("10.0.0.2:2222",), coordinator="10.0.0.3:2222")
    """

    workers: tuple[str, ...]
    parameter_servers: tuple[str, ...]
    coordinator: str | None = None

    def __post_init__(self) -> None:
        for job, addresses in (("worker", self.workers), ("ps", self.parameter_servers)):
            if not addresses:
                raise ValueError(f"cluster: there is no {job}. Give at least one address, such as '10.0.0.1:2222'.")
        seen: set[str] = set()
        for address in self.addresses():
            match = _ADDRESS.match(address)
            if not match or not 0 < int(match["port"]) < 2**16:
                raise ValueError(f"cluster: {quoted(address)} is no address. Write host:port, such as '10.0.0.1:2222'.")
            if address in seen:
                raise ValueError(f"cluster: {quoted(address)} is given twice. Each process has its own address.")
            seen.add(address)

    def addresses(self) -> list[str]:
        """Of all processes."""
        return [*self.workers, *self.parameter_servers, *([self.coordinator] if self.coordinator else [])]

    def servers(self) -> list[Process]:
        """The parameter servers."""
        return [Process("ps", task, address) for task, address in enumerate(self.parameter_servers)]

    def processes(self) -> list[Process]:
        """All but the coordinator: parameter servers, then workers."""
        return [*self.servers(), *(Process("worker", task, address) for task, address in enumerate(self.workers))]

    def jobs(self) -> dict[str, list[str]]:
        """As TensorFlow has them: job name -> addresses."""
        chief = {"chief": [self.coordinator]} if self.coordinator else {}
        return {**chief, "worker": list(self.workers), "ps": list(self.parameter_servers)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that `load` reads."""
        Path(path).write_text(json.dumps(self.jobs(), indent=2) + "\n", encoding="utf-8")

    def tf_config(self, job: str, task: int) -> str:
        """The value of TF_CONFIG for one process."""
        return json.dumps({"cluster": self.jobs(), "task": {"type": job, "index": task}})

    @classmethod
    def load(cls, cluster: Cluster | Mapping[str, Any] | str | os.PathLike[str] | None = None) -> Cluster:
        """The cluster from whatever describes it.

        Args:
            cluster: None for TF_CONFIG of the environment; a mapping `{"worker": [...], "ps": [...], "chief": [...]}`,
                also inside `{"cluster": ...}`; or the path of a YAML or JSON file with such a mapping.

        Raises:
            ValueError: it is none; names the key.
            FileNotFoundError: there is no such file.
        """
        if isinstance(cluster, Cluster):
            return cluster
        if cluster is None:
            return cls._from_mapping(_tf_config()["cluster"], TF_CONFIG)
        if isinstance(cluster, Mapping):
            return cls._from_mapping(_inner(cluster, "cluster"), "cluster")
        path = Path(cluster)
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder. Give a YAML file with worker: and ps: lists.")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such cluster file. Give a YAML file with worker: and ps: lists.")
        given = parse_yaml(read_text(path), source=str(path))
        if given is None:
            raise ValueError(f"{path}: the file is empty. Write lists worker: and ps: of host:port.")
        return cls._from_mapping(_inner(given, str(path)), str(path))

    @classmethod
    def _from_mapping(cls, given: Any, source: str) -> Cluster:
        if not isinstance(given, Mapping):
            raise ValueError(
                f"{source}: the cluster is {type(given).__name__}, not a mapping of lists worker: and ps:."
            )
        for key in given:
            if key not in JOBS:
                raise ValueError(
                    f"{source}: unknown job {quoted(key)}{hint(key, JOBS)} Jobs are: "
                    f"{', '.join(JOBS)} (chief is the coordinator, ps a parameter server)."
                )
        for key, addresses in given.items():
            if isinstance(addresses, str) or not isinstance(addresses, Sequence):
                raise ValueError(f"{source}: {key} is {quoted(addresses)}, not a list of addresses 'host:port'.")
        chief = list(given.get("chief", ()))
        if len(chief) > 1:
            raise ValueError(f"{source}: chief has {len(chief)} addresses {chief}. There is one coordinator.")
        try:
            return cls(
                workers=tuple(map(str, given.get("worker", ()))),
                parameter_servers=tuple(map(str, given.get("ps", ()))),
                coordinator=str(chief[0]) if chief else None,
            )
        except ValueError as error:
            if source == "cluster":
                raise
            raise ValueError(f"{source}: {error}") from error


def task_from_environment() -> tuple[str, int]:
    """Job and number of this process, by TF_CONFIG.

    Raises:
        ValueError: TF_CONFIG is missing or has no such task.
    """
    config = _tf_config()
    task = config.get("task")
    if not isinstance(task, Mapping) or task.get("type") not in JOBS:
        raise ValueError(
            f"{TF_CONFIG}: task is {quoted(task)}. Give its type, one of {', '.join(JOBS)}, and its index."
        )
    index = task.get("index")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError(
            f"{TF_CONFIG}: task index is {quoted(index)}. Give the number of the process in its job, from 0."
        )
    return str(task["type"]), index


def _tf_config() -> Mapping[str, Any]:
    text = os.environ.get(TF_CONFIG)
    if not text:
        raise ValueError(
            f"there is no cluster: {TF_CONFIG} is not set. Set it, or give a cluster (cluster=, --cluster)."
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{TF_CONFIG} is not JSON: {error}.") from error
    if not isinstance(config, Mapping) or "cluster" not in config:
        raise ValueError(f"{TF_CONFIG} has no 'cluster'. Give {{'cluster': {{'worker': [...], 'ps': [...]}}}}.")
    unknown = sorted(set(config) - {"cluster", "task", "rpc_layer", "environment"})
    if unknown:
        raise ValueError(f"{TF_CONFIG}: unknown key {quoted(unknown[0])}. Keys are: cluster, task.")
    return config


def _inner(given: Any, source: str) -> Any:
    if not isinstance(given, Mapping) or "cluster" not in given:
        return given
    unknown = sorted(set(given) - {"cluster", "task"})
    if unknown:
        raise ValueError(f"{source}: unknown key {quoted(unknown[0])}. Keys beside the cluster are: task.")
    return given["cluster"]
