"""`parameter_server`: the strategy, and what it is made of."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from tfdlrm.config import ParameterServerConfig, TrainConfig
from tfdlrm.distribute.binding import bind_coordinator, split_address, why_not
from tfdlrm.distribute.cluster import Cluster, Process
from tfdlrm.distribute.fingerprint import available_bytes, have_kernels, refuse_strangers
from tfdlrm.distribute.local_cluster import reserved_address
from tfdlrm.embeddings.placement.parameter_server import ParameterServerPlacement
from tfdlrm.embeddings.planner import ShardingPlan
from tfdlrm.embeddings.shard_plan import ShardPlan, bytes_text, shard
from tfdlrm.native import loader

WAIT_SECONDS = 120.0
_LOOP = "_training_loop"
CONNECTED: list[Cluster] = []
"""What this process is connected to: its end waits for processes that may be gone."""


def parameter_server(
    cluster: Cluster | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    workers: Sequence[str] | None = None,
    parameter_servers: Sequence[str] | None = None,
    wait_seconds: float = WAIT_SECONDS,
    **options: Any,
) -> ParameterServerStrategy:
    """Training with tables cut over parameter servers and dense layers copied to the workers.

    The script is that of one machine, inside of the strategy's scope; it runs on the coordinator. Workers and servers
    are processes `tfdlrm server`.

    Args:
        cluster: None for TF_CONFIG, a mapping, a YAML file, or a `Cluster`; see `Cluster.load`.
        workers, parameter_servers: addresses, instead of `cluster`.
        wait_seconds: for processes that are not there yet.
        **options: of `ParameterServerConfig`: synchronous, max_staleness, wire_dtype, permute, min_shard_bytes.

    Raises:
        ValueError: cluster or options mean nothing; names the key.
            Or a process runs other versions, or was started with another cluster; names it and both.
        TimeoutError: a process does not answer; names its address.

    Example:
        >>> with tfdlrm.distribute.parameter_server("cluster.yaml").scope():
        ...     model = DLRM(config)
        ...     model.compile(keras.optimizers.Adagrad(0.01), loss)
        >>> model.fit(x, y, epochs=2)
    """
    if workers is not None or parameter_servers is not None:
        if cluster is not None:
            raise ValueError("parameter_server: give cluster, or workers and parameter_servers, not both.")
        cluster = Cluster(workers=tuple(workers or ()), parameter_servers=tuple(parameter_servers or ()))
    loaded = Cluster.load(cluster)
    checked = ParameterServerConfig.from_dict(options)
    if loaded.coordinator is None:
        with reserved_address() as address:
            loaded = replace(loaded, coordinator=address)
    wait_for(loaded, wait_seconds)
    assert loaded.coordinator is not None
    bind_coordinator(loaded.coordinator)
    strategy = ParameterServerStrategy(loaded, checked)
    refuse_strangers(loaded)
    kernels = loader.library()
    if kernels is not None and not have_kernels(loaded, kernels):
        os.environ[loader.SETTING] = "off"  # steps are traced here for all processes
    return strategy


def strategy_of(
    train: TrainConfig, cluster: Cluster | Mapping[str, Any] | str | os.PathLike[str] | None = None
) -> ParameterServerStrategy | None:
    """The strategy that `train.strategy` names, connected to its cluster; None for one process.

    Args:
        train: `strategy` and its options.
        cluster: as for `parameter_server`; None for TF_CONFIG.
    """
    return None if train.strategy == "local" else parameter_server(cluster, **train.parameter_server.to_dict())


def wait_for(cluster: Cluster, seconds: float) -> None:
    """Waits until every worker and server can be reached; TensorFlow itself would wait for ever, without a word.

    Raises:
        TimeoutError: names all that cannot be, and why.
    """
    end = time.monotonic() + seconds
    said = False
    while missing := _missing(cluster):
        if time.monotonic() > end:
            raise TimeoutError(
                f"after {seconds:g} s there is no answer from {missing}. Start each: tfdlrm server --job ps|worker "
                "--task N, with the same cluster."
            )
        if not said:
            print(f"waiting up to {seconds:g} s for {missing} ...", file=sys.stderr, flush=True)
        said = True
        time.sleep(0.2)


def _missing(cluster: Cluster) -> str:
    """Processes that do not answer, and why not."""
    return ", ".join(
        f"{process} ({why})" for process in cluster.processes() if (why := why_not(process.address)) is not None
    )


def _leave_threads_alone(coordinator: weakref.ref[Any]) -> None:
    """For the end of the process: TensorFlow's destructor takes locks that the coordinator's threads may hold.

    They are daemon threads, which never let go once the interpreter shuts down: a process that had lost a server hung.
    """
    alive = coordinator()
    if alive is not None:
        alive._cluster.stop = lambda: None


class ParameterServerStrategy(tf.distribute.ParameterServerStrategy):
    """`tf.distribute.ParameterServerStrategy` for models with embedding collections; see `parameter_server`.

    Args:
        cluster: all of its processes are running.
        options: of training.
    """

    def __init__(self, cluster: Cluster, options: ParameterServerConfig):
        loader.library()  # before the connection: the runtime copies its list of ops to nobody later
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster.jobs()), task_type="chief", task_id=0, rpc_layer="grpc"
        )
        super().__init__(resolver)
        self._init_of(cluster, options)

    def _init_of(self, cluster: Cluster, options: ParameterServerConfig) -> None:
        self.cluster = cluster
        self.options = options
        self._coordinator: Any = None
        CONNECTED.append(cluster)
        # all Keras variables lie on the first server, so that they are read and updated by one message
        self.extended._num_ps = 1

    @property
    def server_devices(self) -> list[str]:
        """Of the parameter servers."""
        return [server.device for server in self.cluster.servers()]

    def coordinator(self) -> tf.distribute.coordinator.ClusterCoordinator:
        """TensorFlow's, one a strategy."""
        coordinator = tf.distribute.coordinator.ClusterCoordinator(self)
        if self._coordinator is not coordinator:
            self._coordinator = coordinator
            atexit.register(_leave_threads_alone, weakref.ref(coordinator))
        return coordinator

    def table_placement(self, plan: ShardingPlan, seed: int) -> ParameterServerPlacement:
        """What the tables of a model in this scope are made by."""
        permute = self.options.permute
        shards = shard(
            plan,
            len(self.server_devices),
            seed=seed,
            min_shard_bytes=self.options.min_shard_bytes,
            permute=dict(permute) if isinstance(permute, Mapping) else permute,
        )
        self._refuse_too_large(shards)
        return ParameterServerPlacement(plan, seed, shards, self.server_devices, self.options.wire_dtype)

    def _refuse_too_large(self, shards: ShardPlan) -> None:
        """Compares what the servers of each machine would hold with what it can still give."""
        machines: dict[str, list[Process]] = {}
        for server in self.cluster.servers():
            machines.setdefault(split_address(server.address)[0], []).append(server)
        for machine, servers in machines.items():
            needed = sum(shards.server_bytes[server.task] for server in servers)
            there = available_bytes(servers[0])
            if there is not None and needed > there:
                raise ValueError(
                    f"the tables' rows and slots take {bytes_text(sum(shards.server_bytes))}: {bytes_text(needed)} of "
                    f"them on {machine} ({', '.join(f'ps {server.task}' for server in servers)}), where "
                    f"{bytes_text(there)} of memory are available. Add parameter servers on other machines, or make "
                    "the tables smaller: quotient_remainder, mixed_dimension, row_dtype, a row optimizer with fewer "
                    "slots."
                )

    def training_loop(self, model: keras.Model) -> Any:
        """The `FitLoop` of a model; `tfdlrm.Model.fit` goes by it."""
        from tfdlrm.distribute.fit_loop import FitLoop

        # of the model, so that both end together; not by setattr: Keras would track what the loop holds
        if _LOOP not in model.__dict__:
            model.__dict__[_LOOP] = FitLoop(model, self)
        return model.__dict__[_LOOP]
