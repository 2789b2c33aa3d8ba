"""A served tiny model, in this process, and versions to copy."""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from savedmodels.client import GrpcClient, RestClient
from savedmodels.client.retries import RetryPolicy
from savedmodels.server.config import ModelConfig
from savedmodels.server.inference import Inference, Target
from savedmodels.server.lifetimes import Call, Lifetime, Taken
from savedmodels.server.metrics import Metrics, Request
from savedmodels.server.options import ServerOptions
from savedmodels.server.program import Server
from savedmodels.server.store import ModelStore
from savedmodels.wire.arrays import to_array
from tests.savedmodels.server.tiny_models import predict_inputs, save_version

READY_SECONDS = 60.0
WAIT_SECONDS = 30.0
MAX_ROWS = 1000
MAX_MESSAGE_BYTES = 2**20
PREDICT = "/v1/models/tiny:predict"


@pytest.fixture(scope="session")
def versions(tmp_path_factory) -> Path:
    """Versions 1, 2 and 3 of the tiny model: each says in its answers which it is."""
    base = tmp_path_factory.mktemp("versions")
    for number in (1, 2, 3):
        save_version(base, number)
    return base


@pytest.fixture
def publish(versions, tmp_path) -> Callable[..., Path]:
    """Copies a version to a folder of this test's own; it appears whole."""

    def copy(number: int, folder_name: str = "") -> Path:
        base = tmp_path / "model"
        base.mkdir(exist_ok=True)
        partial = base / f".{number}.partial"
        shutil.copytree(versions / str(number), partial)
        return partial.rename(base / (folder_name or str(number)))

    return copy


def options(**changes: Any) -> ServerOptions:
    """Of a test's server: any ports, small limits, quick looks at folders."""
    plain = {
        "grpc_port": 0,
        "rest_port": 0,
        "max_rows": MAX_ROWS,
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "poll_seconds": 0.05,
        "drain_seconds": 10.0,
    }
    return ServerOptions(**{**plain, **changes})


@pytest.fixture(scope="session")
def server(versions) -> Iterator[Server]:
    """Serves version 1 as `tiny`."""
    configs = [ModelConfig(name="tiny", base_path=versions, num_latest=None, versions=(1,), labels={"stable": 1})]
    with Server(configs, options()) as running:
        assert running.wait_until_ready(READY_SECONDS)
        yield running


@pytest.fixture(autouse=True)
def _no_fault_of_the_http_layer(caplog) -> Iterator[None]:
    """asyncio and aiohttp log a fault in what is called by them, close the connection and go on."""
    yield
    faults = [record.getMessage() for record in caplog.get_records("call") if _is_fault(record)]
    assert faults == []


def _is_fault(record: logging.LogRecord) -> bool:
    is_ours = record.name == "tfdlrm.serve" and record.getMessage() in ("a request failed", "Unhandled exception")
    return record.levelno >= logging.ERROR and (is_ours or record.name == "asyncio")


class Gate:
    """Holds requests of the signature `held` until it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.inputs = [str(path)]

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    made.open()  # or a thread of the server would go on with it


def wait_until(condition: Callable[[], bool], told: Callable[[], object] = str) -> None:
    """Looks again and again until the condition holds; one that never does fails the test with what `told` gives."""
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


def wait_in_flight(rest_port: int, number: int) -> None:
    """Waits until a server answers so many requests at once, this look apart."""
    asked = Rest(rest_port)

    def is_so() -> bool:
        asked.connection.request("GET", "/monitoring/prometheus/metrics")
        page = asked.connection.getresponse().read().decode()
        return f"tfdlrm_serving_requests_in_flight {number}.0" in page

    wait_until(is_so)
    asked.connection.close()


class Served:
    """A store and what runs its models, without sockets."""

    def __init__(self, *configs: ModelConfig, **limits: Any) -> None:
        metrics = Metrics()
        self.metrics = metrics
        self.store = ModelStore(configs, metrics, poll_seconds=0.02, **limits)
        self.inference = Inference(self.store, options(), metrics)
        self.store.start()

    def ask(self, signature: str = "predict", inputs: dict | None = None, **target) -> list:
        """Runs a signature; the version of every row, or the only output."""
        inputs = inputs or predict_inputs(3)
        answer = self.inference.predict(
            Target(model="tiny", signature=signature, **target),
            lambda spec: {name: to_array(spec.inputs[name], value) for name, value in inputs.items()},
            call=call_for(60.0),
        )
        return answer.outputs["version" if signature == "predict" else next(iter(answer.outputs))].tolist()

    def states(self) -> dict[int, str]:
        return {version.number: version.state for version in self.store.model("tiny").statuses()}

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, self.states)


def call_for(seconds: float) -> Call:
    """A request that may take so long."""
    return Call(life=Lifetime(seconds), seen=Request(), turn=Taken(lambda: None))


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., Served]]:
    made = []

    def start(**config) -> Served:
        (tmp_path / "model").mkdir(exist_ok=True)
        made.append(Served(ModelConfig(name="tiny", base_path=tmp_path / "model", **config)))
        return made[-1]

    yield start
    for served in made:
        served.inference.drain(WAIT_SECONDS)
        served.store.stop()


def post(path: str, body: bytes) -> bytes:
    """A whole request, for a bare socket."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Rest:
    """Asks a server over HTTP, on one connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status, and the parsed body; the connection must be kept."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        self.connection.request(method, path, data, headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def predict(self, body: Any, path: str = PREDICT) -> tuple[int, Any]:
        """POST; of errors the text alone."""
        status, answer = self.send("POST", path, body)
        return status, answer if status == 200 else answer["error"]


@pytest.fixture
def rest(server) -> Iterator[Rest]:
    asked = Rest(server.rest_port)
    yield asked
    asked.connection.close()


@pytest.fixture(params=["grpc", "rest"])
def connect(request) -> Iterator[Callable[..., GrpcClient | RestClient]]:
    """Makes clients of both kinds; retries only where a test asks for them."""
    made = []

    def client(server: Server, **changes: Any) -> GrpcClient | RestClient:
        settings = {"model": "tiny", "retry": RetryPolicy(num_retries=0), **changes}
        is_grpc = request.param == "grpc"
        port = server.grpc_port if is_grpc else server.rest_port
        made.append((GrpcClient if is_grpc else RestClient)(f"127.0.0.1:{port}", **settings))
        return made[-1]

    yield client
    for each in made:
        each.close()
