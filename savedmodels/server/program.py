"""A server from its first log line to its exit."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence

from savedmodels.server.config import ModelConfig
from savedmodels.server.grpc_service import GrpcService
from savedmodels.server.http_server import HttpServer
from savedmodels.server.inference import Inference
from savedmodels.server.loading import Load
from savedmodels.server.metrics import Metrics
from savedmodels.server.options import ServerOptions
from savedmodels.server.rest_service import RestService
from savedmodels.server.store import ModelStore
from tfdlrm.checks import quoted
from tfdlrm.stop_signals import StopSignals

logger = logging.getLogger("tfdlrm.serve")

WHAT_IT_IS_NOT = (
    "a server for development and tests, not TensorFlow Serving: one Python process, no authentication, no TLS, no "
    "batching on accelerators. In production serve the same folders with TensorFlow Serving (savedmodels/deploy)."
)
EXIT_CUT_OFF = 1
GRACE_SECONDS = 4.0  # beyond drain_seconds, for what is not a request
READY_POLL_SECONDS = 0.1


class Server:
    """Both interfaces on one set of models.

    Args:
        configs: models to serve.
        options: addresses and limits.

    Raises:
        FileNotFoundError: a model's folder does not exist.
        OSError: a port cannot be bound.

    Example:
        >>> options = ServerOptions(grpc_port=0, rest_port=0)
        >>> with Server([ModelConfig(name="clicks", base_path=folder)], options) as server:
        ...     server.wait_until_ready(60)
        ...     print(server.grpc_port, server.rest_port)
    """

    def __init__(self, configs: Sequence[ModelConfig], options: ServerOptions) -> None:
        for config in configs:
            if not config.base_path.is_dir():
                raise FileNotFoundError(
                    f"model {quoted(config.name)}: {config.base_path} is no folder. Give the "
                    "folder of its numbered versions."
                )
        self._options = options
        self._metrics = Metrics()
        self.store = ModelStore(
            configs, self._metrics, options.poll_seconds, options.load_seconds, options.max_version_bytes
        )
        inference = Inference(self.store, options, self._metrics)
        self._inference = inference
        self._grpc_stopped: threading.Event | None = None  # from when on nothing new is taken
        self._drained: bool | None = None
        self._http = HttpServer(RestService(inference, self._metrics, self._is_ready), options)
        self._grpc_service = GrpcService(inference, options, self._metrics)
        try:
            self._grpc, self.grpc_port = self._grpc_service.start()
        except OSError:
            self._http.stop_listening()
            self._http.drain(0.0)
            raise
        self.rest_port = self._http.port
        self._http.start()
        self.store.start(self._show_health)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.drain(self._options.drain_seconds)

    def _is_ready(self) -> bool:
        return self._grpc_stopped is None and self.store.is_ready

    def _show_health(self) -> None:
        self._grpc_service.show_health(is_ready=self._is_ready())

    def wait_until_ready(self, timeout_seconds: float) -> bool:
        """Waits until every model has a version to serve.

        Returns:
            False where the time was not enough.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._is_ready():
            if time.monotonic() >= deadline:
                return False
            time.sleep(READY_POLL_SECONDS)
        return True

    def drain(self, timeout_seconds: float) -> bool:
        """Takes nothing new, lets running requests end, and stops.

        Returns:
            Whether all requests have ended by themselves.
        """
        if self._drained is None:
            self.stop_listening(timeout_seconds)
            self._drained = self._wait_for_requests(timeout_seconds)
        return self._drained

    def stop_listening(self, timeout_seconds: float) -> None:
        """Takes nothing new: connections are refused once this has returned. `drain` is to follow.

        Args:
            timeout_seconds: after which running gRPC requests are cut off.
        """
        if self._grpc_stopped is None:
            self._grpc_service.show_health(is_ready=False)
            self._grpc_stopped = self._grpc.stop(timeout_seconds)
            self._http.stop_listening()

    def _wait_for_requests(self, timeout_seconds: float) -> bool:
        assert self._grpc_stopped is not None
        deadline = time.monotonic() + timeout_seconds
        is_idle = self._http.drain(timeout_seconds)
        is_idle = self._inference.drain(max(0.0, deadline - time.monotonic())) and is_idle
        self._grpc_stopped.wait(max(1.0, deadline - time.monotonic()))
        self.store.stop()
        return is_idle


def run(configs: Sequence[ModelConfig], options: ServerOptions) -> int:
    """Serves until SIGTERM or SIGINT; then the process is expected to end, and ignores both.

    Returns:
        Exit code: 0, or 1 where requests were cut off because they took longer than `drain_seconds`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    _quiet_tensorflow()
    # oneDNN's own allocator would keep the memory of every version that was unloaded. TensorFlow asks when it first
    # allocates, which nothing has done yet.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    import tensorflow as tf

    tf.constant(0)  # the runtime's threads and context, before the first request
    gc.collect()
    gc.freeze()  # collections when a version is unloaded need not go through all of TensorFlow
    with StopSignals(second_acts_at_once=False) as signals:
        is_idle = _serve(Server(configs, options), configs, options, signals)
        signals.ignore_until_exit()
    code = 0 if is_idle else EXIT_CUT_OFF
    if Load.any_under_way():
        # at its end the interpreter waits for TensorFlow, which waits for what the load waits for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _serve(server: Server, configs: Sequence[ModelConfig], options: ServerOptions, signals: StopSignals) -> bool:
    """Serves until a signal, and drains; whether all requests have ended by themselves."""
    print(f"tfdlrm serve: {WHAT_IT_IS_NOT}")
    for config in configs:
        print(f"model {config.name}: {config.base_path}")
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"gRPC: {host}:{server.grpc_port}")
    print(f"REST: http://{host}:{server.rest_port}", flush=True)
    is_told = False
    while signals.received is None:
        if not is_told and server.store.is_ready:
            is_told = True
            print("ready", flush=True)
        time.sleep(READY_POLL_SECONDS)
    # whatever hangs: the process ends in this time
    last = threading.Timer(options.drain_seconds + GRACE_SECONDS, os._exit, [EXIT_CUT_OFF])
    last.daemon = True
    last.start()
    server.stop_listening(options.drain_seconds)
    print("stopping: no new requests; running ones may end", flush=True)
    is_idle = server.drain(options.drain_seconds)
    last.cancel()
    print("stopped" if is_idle else f"stopped: requests that took longer than {options.drain_seconds} s were cut off")
    return is_idle


def _quiet_tensorflow() -> None:
    """TensorFlow's own Python notes (of a load, of a garbage collection) are not the server's."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
