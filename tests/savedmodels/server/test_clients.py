"""Both clients: the same methods, the same results, the same errors."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import tensorflow as tf

from savedmodels.client import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    RestClient,
    ServerError,
    UnavailableError,
)
from savedmodels.client.base import Asked
from savedmodels.client.retries import RetryPolicy
from savedmodels.export import export
from savedmodels.server.config import ModelConfig
from savedmodels.server.program import Server
from tests.savedmodels.server.conftest import MAX_ROWS, READY_SECONDS, options, wait_until
from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits
from tests.savedmodels.small_model import SPEC


def test_predict(connect, server):
    inputs = predict_inputs(5)
    outputs = connect(server).predict(inputs, signature="predict")
    assert list(outputs) == ["logit", "probability", "version"]
    assert outputs["logit"].dtype == np.float32
    assert outputs["logit"].shape == (5, 1)
    np.testing.assert_allclose(outputs["logit"][:, 0], predict_logits(inputs), atol=1e-5)
    assert outputs["version"].dtype == np.int64
    arrays = {name: np.array(value) for name, value in inputs.items()}  # float64 is taken for float32
    again = connect(server).predict(arrays, signature="predict")
    np.testing.assert_array_equal(again["logit"], outputs["logit"])


def test_strings_and_single_outputs(connect, server):
    outputs = connect(server).predict({"text": ["é", b"\xff\x00"]}, signature="echo")
    assert outputs["text"].tolist() == outputs["text_bytes"].tolist() == ["é".encode(), b"\xff\x00"]
    assert connect(server).predict({"x": [1, np.nan]}, signature="mean")["mean"].shape == ()


def test_examples_and_rank(connect, server):
    rows = [{"user": 50, "dense": [1.0, 2.0]}, {"user": 0, "dense": [0.0, 0.0]}]
    assert connect(server).predict_examples(rows)["logit"].tolist() == [[3.5], [0.0]]
    with pytest.raises(InvalidRequestError, match="row 1: column 'user' holds float, str"):
        connect(server).predict_examples([rows[0], {"user": [1.5, "a"]}])
    with pytest.raises(InvalidRequestError, match="signature 'slow' takes steps, not serialized Examples"):
        connect(server).predict_examples(rows, signature="slow")
    ranked = connect(server).rank({"dense": [[0.0, 1.0]], "user": [3, 9, 5]}, k=2)
    assert ranked["top_index"].tolist() == [1, 2]


def test_status_and_metadata(connect, server):
    client = connect(server)
    (status,) = client.status()
    assert (status.version, status.state, status.error_code, status.error_message) == (1, "AVAILABLE", "OK", "")
    assert client.status(version=1) == [status]
    metadata = client.metadata(label="stable")
    assert metadata.version == 1
    assert metadata.signatures["predict"].inputs["dense"].text == "float32 [?, 2]"
    assert metadata.signatures["predict"].bags == {
        "genres": "genres_row_lengths",
        "genres_weights": "genres_row_lengths",
    }


@pytest.mark.parametrize("num_rows", [0, 1, 7, 8, 9, 30])
def test_large_requests_go_in_parts_and_are_joined(connect, server, num_rows):
    inputs = predict_inputs(num_rows)
    outputs = connect(server, max_rows=8).predict(inputs, signature="predict")
    assert outputs["probability"].shape == (num_rows, 1)
    np.testing.assert_allclose(outputs["logit"][:, 0], predict_logits(inputs), atol=1e-5)


def test_parts_come_from_one_version(connect, server, monkeypatch):
    client = connect(server, max_rows=2)
    asked, plain = [], client._send_predict
    monkeypatch.setattr(
        client, "_send_predict", lambda spec, arrays, who, left: asked.append(who) or plain(spec, arrays, who, left)
    )
    client.predict(predict_inputs(5), signature="predict")
    assert asked == [Asked(version=1)] * 3


def test_parts_are_asked_again_if_their_version_goes(connect, publish, tmp_path, monkeypatch):
    publish(1)
    with Server([ModelConfig(name="tiny", base_path=tmp_path / "model")], options()) as server:
        assert server.wait_until_ready(READY_SECONDS)
        client = connect(server, max_rows=2)
        plain, parts = client._send_predict, []

        def send(*arguments):
            if len(parts) == 1:
                publish(2)
                wait_until(lambda: [each.version for each in client.status() if each.state == "AVAILABLE"] == [2])
            parts.append(1)
            return plain(*arguments)

        monkeypatch.setattr(client, "_send_predict", send)
        outputs = client.predict(predict_inputs(5), signature="predict")
    assert outputs["version"].tolist() == [2] * 5


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (
            lambda c: c.predict({"usr": [1]}, signature="slow"),
            InvalidRequestError,
            "input 'usr' is unknown to signature",
        ),
        (lambda c: c.predict({"steps": ["x"]}, signature="slow"), InvalidRequestError, "input 'steps', row 0: 'x'"),
        (lambda c: c.predict({}, signature="nope"), InvalidRequestError, "signature 'nope' is not in version 1"),
        (lambda c: c.predict({"examples": [b"x"]}), InvalidRequestError, "Could not parse example input"),
        (lambda c: c.predict({"steps": [1] * (MAX_ROWS + 1)}, signature="slow"), InvalidRequestError, "1001 rows"),
        (
            lambda c: c.predict({"text": ["x" * 2**21]}, signature="echo"),
            InvalidRequestError,
            "larger than max|allowed",
        ),
        (lambda c: c.predict({"steps": [1]}, signature="slow", version=9), NotFoundError, "version 9 of model 'tiny'"),
        (lambda c: c.predict({"steps": [1]}, signature="slow", label="no"), NotFoundError, "no version label 'no'"),
        (lambda c: c.predict({}, version=1, label="stable"), InvalidRequestError, "not both"),
        (lambda c: c.status(version=9), NotFoundError, "version 9 of model 'tiny' is not here"),
    ],
)
def test_errors_are_typed(connect, server, ask, kind, message):
    client = connect(server, max_rows=10_000)
    with pytest.raises(kind, match=message):
        ask(client)
    assert issubclass(kind, ClientError)
    assert client.predict({"steps": [1]}, signature="slow")["steps"].tolist() == [1]


def test_a_request_that_takes_too_long_is_given_up(connect, server, gate):
    client = connect(server)
    with pytest.raises(DeadlineError, match=r"no answer within|DEADLINE|Deadline"):
        client.predict({"gate": gate.inputs}, signature="held", timeout_seconds=0.3)
    assert client.predict({"steps": [1]}, signature="slow")["steps"].tolist() == [1]


def test_another_model_is_not_found(connect, server):
    with pytest.raises(NotFoundError, match="model 'other' is not served here"):
        connect(server, model="other").status()


class _Port:
    """A port where nobody listens, and which nobody else can take meanwhile."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # our own server may listen there later
        self._socket.bind(("127.0.0.1", 0))
        self.grpc_port = self.rest_port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def port() -> Iterator[_Port]:
    with contextlib.closing(_Port()) as made:
        yield made


def test_nobody_there_is_tried_again_within_the_time(connect, port, monkeypatch):
    waits, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (waits.append(seconds), sleep(seconds)))
    with pytest.raises(UnavailableError):
        connect(port, retry=RetryPolicy(num_retries=3, first_wait_seconds=0.01)).status()
    assert len(waits) == 3
    waits.clear()
    with pytest.raises(ClientError) as caught:
        connect(port, retry=RetryPolicy(num_retries=1000, first_wait_seconds=0.5)).status(timeout_seconds=0.6)
    assert isinstance(caught.value, (UnavailableError, DeadlineError))
    assert sum(waits) < 0.6


def test_a_server_that_comes_late_is_found(connect, port, versions, monkeypatch):
    client = connect(port, retry=RetryPolicy(num_retries=10**6, max_wait_seconds=0.2), timeout_seconds=READY_SECONDS)
    found, refused, sleep = [], threading.Event(), time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (refused.set(), sleep(seconds)))
    thread = threading.Thread(target=lambda: found.append(client.predict({"steps": [1]}, signature="slow")))
    thread.start()
    refused.wait()
    is_grpc = type(client).__name__ == "GrpcClient"
    ports = {"grpc_port": port.grpc_port if is_grpc else 0, "rest_port": 0 if is_grpc else port.rest_port}
    with Server([ModelConfig(name="tiny", base_path=versions)], options(**ports)):
        thread.join()
    assert found[0]["steps"].tolist() == [1]


def test_waits_grow_and_only_what_may_succeed_is_tried_again(monkeypatch):
    waits, tries = [], []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)

    def fail(left: float) -> None:
        tries.append(left)
        raise UnavailableError("no")

    policy = RetryPolicy(num_retries=5, first_wait_seconds=0.1, max_wait_seconds=1.0)
    with pytest.raises(UnavailableError):
        policy.call(fail, time.monotonic() + 60)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert len(tries) == 6
    with pytest.raises(DeadlineError):
        policy.call(fail, time.monotonic() - 1)

    def refuse(left: float) -> None:
        tries.append(left)
        raise InvalidRequestError("no")

    with pytest.raises(InvalidRequestError):
        policy.call(refuse, time.monotonic() + 60)
    assert len(tries) == 7


class _Failing(BaseHTTPRequestHandler):
    statuses: list[int]

    def do_GET(self) -> None:
        status = self.statuses.pop(0)
        body = b'{"model_version_status": []}' if status == 200 else b"<html>a proxy's page</html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize(
    ("statuses", "raised"), [([503, 503, 200], None), ([500], ServerError), ([503, 404], NotFoundError)]
)
def test_rest_tries_503_again_and_nothing_else(statuses, raised, monkeypatch):
    monkeypatch.setattr(_Failing, "statuses", list(statuses), raising=False)
    with HTTPServer(("127.0.0.1", 0), _Failing) as failing:
        thread = threading.Thread(target=failing.serve_forever, args=(0.01,))
        thread.start()
        with RestClient(f"127.0.0.1:{failing.server_port}", retry=RetryPolicy(first_wait_seconds=0.01)) as client:
            if raised is None:
                assert client.status() == []
            else:
                with pytest.raises(raised, match=f"HTTP {statuses[-1]}: <html>a proxy's page"):
                    client.status()
        failing.shutdown()
        thread.join()
    assert _Failing.statuses == []


def test_a_connection_that_the_server_closed_is_opened_again(versions):
    with Server([ModelConfig(name="tiny", base_path=versions)], options(idle_seconds=0.2)) as server:
        assert server.wait_until_ready(READY_SECONDS)
        with RestClient(f"127.0.0.1:{server.rest_port}", "tiny", retry=RetryPolicy(num_retries=0)) as client:
            client.status()
            wait_until(lambda: not server._http.num_connections)
            assert client.status()


def test_a_newer_versions_signature_is_learned(connect, server):
    client = connect(server)
    known = client.metadata()
    slow = known.signatures["slow"]
    renamed = type(slow)(name="slow", inputs={"count": slow.inputs["steps"]}, outputs=slow.outputs)
    client._known[Asked()] = type(known)(model="tiny", version=0, signatures={"slow": renamed})
    assert client.predict({"steps": [3]}, signature="slow")["steps"].tolist() == [3]


def test_an_export_is_served(connect, model, tmp_path):
    """A real model, by the files that the export leaves and the signatures it names."""
    folder = export(model, tmp_path / "export", spec=SPEC)
    loaded = tf.saved_model.load(str(folder))
    with Server([ModelConfig(name="tiny", base_path=tmp_path / "export")], options()) as server:
        assert server.wait_until_ready(READY_SECONDS)
        client = connect(server)
        signatures = client.metadata().signatures
        assert set(signatures) == set(loaded.signatures)
        name = "predict" if "predict" in signatures else "serving_default"
        spec = signatures[name]
        rows, inputs = 3, {}
        for each, tensor in spec.inputs.items():
            if tensor.dtype.kind == "O":
                inputs[each] = np.array([b"a"] * rows, object)
            else:
                inputs[each] = np.ones([size or rows for size in tensor.shape], tensor.dtype)
        outputs = client.predict(inputs, signature=name)
        tensors = {each: tf.constant(value, spec.inputs[each].dtype) for each, value in inputs.items()}
        for each, expected in loaded.signatures[name](**tensors).items():
            np.testing.assert_allclose(outputs[each], expected.numpy(), atol=1e-6)
    shutil.rmtree(tmp_path / "export")


@pytest.mark.parametrize("connect", ["rest"], indirect=True)
def test_a_body_that_is_refused_does_not_reset_the_answer(connect, server):
    client = connect(server, max_rows=10_000)
    for _ in range(20):  # a reset overtakes the answer only at times
        with pytest.raises(InvalidRequestError, match="allowed"):
            client.predict({"text": ["x" * 2**23]}, signature="echo")
