"""One round of `tools/fuzz.py --of requests`: bytes that are nearly a request get an answer, and harm nobody else."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from savedmodels.export import export
from savedmodels.server.config import ModelConfig
from savedmodels.server.options import ServerOptions
from savedmodels.server.program import Server
from savedmodels.wire.protos import PREDICTION_SERVICE, classification_pb2, example_pb2, predict_pb2
from savedmodels.wire.tensors import to_proto
from tests.fuzz_bytes import BORDERS, changed
from tests.savedmodels import small_model
from tests.savedmodels.server.conftest import post
from tests.savedmodels.server.tiny_models import predict_inputs, save_version

WAIT_SECONDS = 20.0  # for an answer, however busy the machine is
MAX_BYTES = 2**18
LONGEST_MESSAGE = 4000
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
PREDICT = f"/{PREDICTION_SERVICE}/Predict"
CLASSIFY = f"/{PREDICTION_SERVICE}/Classify"


class RequestRounds:
    """A server of two models: one with every form of signature, and a DLRM.

    Args:
        folder: where they may be written.
    """

    def __init__(self, folder: Path) -> None:
        save_version(_made(folder / "tiny"), 1)
        export(small_model.build(), folder / "clicks", spec=small_model.SPEC)
        configs = [ModelConfig(name=name, base_path=folder / name) for name in ("tiny", "clicks")]
        options = ServerOptions(
            grpc_port=0, rest_port=0, max_rows=200, max_message_bytes=MAX_BYTES, request_seconds=WAIT_SECONDS / 2
        )
        self._server = Server(configs, options)
        assert self._server.wait_until_ready(120)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._server.grpc_port}")
        columns = small_model.columnar(small_model.features(3))
        self._clicks = {name: np.asarray(value) for name, value in columns.items()}
        self._bodies = self._make_bodies()
        self._messages = self._make_messages()
        self._good = self._ask_well()

    def close(self) -> None:
        """Stops the server."""
        self._channel.close()
        self._server.drain(5)

    def _make_bodies(self) -> list[tuple[str, dict[str, Any]]]:
        rows = predict_inputs(4)
        examples = [{"user": user, "dense": [0.5, 1.5]} for user in range(3)]
        serialized = base64.b64encode(_example().SerializeToString()).decode()
        rank = {"dense": [[1, 2]], "user": [1, 2], "k": 1}
        clicks = {name: array.tolist() for name, array in self._clicks.items()}
        return [
            ("/v1/models/tiny:predict", {"signature_name": "predict", "inputs": rows}),
            (
                "/v1/models/tiny/versions/1:predict",
                {"instances": [{"b64": serialized}]},
            ),
            (
                "/v1/models/tiny:predict",
                {"signature_name": "rank", "inputs": rank},
            ),
            ("/v1/models/tiny:predict", {"signature_name": "echo", "instances": ["a", "ü", {"b64": "/w=="}]}),
            ("/v1/models/tiny:classify", {"signature_name": "classify", "examples": examples, "context": {"user": 1}}),
            ("/v1/models/tiny:regress", {"signature_name": "regress", "examples": examples}),
            ("/v1/models/clicks:predict", {"signature_name": "predict", "inputs": clicks}),
        ]

    def _make_messages(self) -> list[tuple[str, bytes]]:
        clicks = predict_pb2.PredictRequest()
        clicks.model_spec.name, clicks.model_spec.signature_name = "clicks", "predict"
        for name, array in self._clicks.items():
            clicks.inputs[name].CopyFrom(to_proto(array))
        tiny = predict_pb2.PredictRequest(output_filter=["logit"])
        tiny.model_spec.name, tiny.model_spec.signature_name = "tiny", "predict"
        dtypes = {"dense": np.float32, "genres_weights": np.float32}
        for name, value in predict_inputs(4).items():
            tiny.inputs[name].CopyFrom(tf.make_tensor_proto(np.array(value, dtypes.get(name, np.int64))))
        example = _example()
        classify = classification_pb2.ClassificationRequest()
        classify.model_spec.name, classify.model_spec.signature_name = "tiny", "classify"
        classify.input.example_list_with_context.examples.extend([example, example])
        classify.input.example_list_with_context.context.CopyFrom(example)
        return [
            (PREDICT, clicks.SerializeToString()),
            (PREDICT, tiny.SerializeToString()),
            (CLASSIFY, classify.SerializeToString()),
        ]

    def run(self, seed: int) -> int:
        """Runs one round; returns 1 where what was changed was refused.

        Raises:
            AssertionError: no answer in time, an answer that blames the server, a message of any length; or a good
                request gets another answer than before.
        """
        rng = np.random.default_rng(seed)
        kinds = (self._http_bytes, self._body_bytes, self._body_values, self._message)
        refused = kinds[seed % len(kinds)](rng)
        if seed % 16 == 0:
            assert self._ask_well() == self._good, "a good request got another answer"
        return refused

    def _ask_well(self) -> list[bytes]:
        answers = []
        for path, body in self._bodies:
            status, answer = self._http(post(path, json.dumps(body).encode()), ends=False)
            assert status == 200, answer
            answers.append(answer)
        for method, message in self._messages:
            call = self._channel.unary_unary(method)
            call(message, timeout=WAIT_SECONDS)
        return answers

    def _http_bytes(self, rng: np.random.Generator) -> int:
        """Line and headers as well."""
        path, body = self._bodies[int(rng.integers(len(self._bodies)))]
        return self._refused(*self._http(changed(rng, post(path, json.dumps(body).encode()))))

    def _body_bytes(self, rng: np.random.Generator) -> int:
        path, body = self._bodies[int(rng.integers(len(self._bodies)))]
        return self._refused(*self._http(post(path, changed(rng, json.dumps(body).encode()))))

    def _body_values(self, rng: np.random.Generator) -> int:
        path, body = self._bodies[int(rng.integers(len(self._bodies)))]
        text = json.dumps(_strange(rng, body))
        return self._refused(*self._http(post(path, text.encode())))

    def _refused(self, status: int, answer: bytes) -> int:
        if status in (0, 200):  # 0: what was sent is no whole request, and the connection was closed
            return int(status == 0)
        assert status < 500 or status in (501, 505), (status, answer[:500])
        assert len(json.loads(answer)["error"]) <= LONGEST_MESSAGE
        return 1

    def _http(self, data: bytes, *, ends: bool = True) -> tuple[int, bytes]:
        """Status and body of the first answer to some bytes, after which the client closes its half or not."""
        with socket.create_connection(("127.0.0.1", self._server.rest_port), timeout=WAIT_SECONDS) as connection:
            try:
                connection.sendall(data)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
                else:
                    response = http.client.HTTPResponse(connection)
                    response.begin()
                    return response.status, response.read()
                answer = b"".join(iter(lambda: connection.recv(2**16), b""))
            except ConnectionError:
                return 0, b""
        head, _, rest = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        return (int(lines[0].split()[1]), rest[: lengths[0]]) if lengths else (0, b"")

    def _message(self, rng: np.random.Generator) -> int:
        method, message = self._messages[int(rng.integers(len(self._messages)))]
        call = self._channel.unary_unary(method)
        if method == PREDICT and rng.integers(2):
            message = _strange_tensor(rng, message)
        else:
            message = changed(rng, message)
        try:
            call(message, timeout=WAIT_SECONDS)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
        else:
            return 0
        assert code not in FAULTS, (code, details)
        assert len(details) <= LONGEST_MESSAGE
        return 1


def _example() -> Any:
    example = example_pb2.Example()
    example.features.feature["user"].int64_list.value.append(1)
    example.features.feature["dense"].float_list.value.extend([1, 2])
    return example


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _strange_tensor(rng: np.random.Generator, message: bytes) -> bytes:
    """A PredictRequest whose parts fit each other no more."""
    request = predict_pb2.PredictRequest.FromString(message)
    tensor = request.inputs[str(rng.choice(sorted(request.inputs)))]
    for _ in range(int(rng.integers(1, 3))):
        match int(rng.integers(6)):
            case 0:
                tensor.dtype = int(rng.integers(0, 25))
            case 1 if tensor.tensor_shape.dim:
                dims = tensor.tensor_shape.dim
                dims[int(rng.integers(len(dims)))].size = int(rng.choice(np.array(BORDERS, np.int64)))
            case 2:
                tensor.tensor_shape.dim.add().size = int(rng.choice([0, 1, 2, 2**40]))
            case 3:
                tensor.int64_val.extend(rng.choice(np.array(BORDERS, np.int64), int(rng.integers(1, 20))).tolist())
                tensor.tensor_content = b""
            case 4:
                tensor.tensor_content = changed(rng, tensor.tensor_content)
            case _:
                request.model_spec.signature_name = str(rng.choice(["rank", "slow", "echo", "mean", "", "x" * 5000]))
    return request.SerializeToString()


def _strange(rng: np.random.Generator, value: Any) -> Any:
    """The value with one in it put in place of another."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = str(rng.choice(list(value)))
        if rng.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        if rng.random() < 0.1:
            return {**value, "x" * int(rng.choice([1, 5000])): value[key]}
        return {**value, key: _strange(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        if rng.random() < 0.1:
            return value * int(rng.choice([0, 2, 300]))
        return [*value[:at], _strange(rng, value[at]), *value[at + 1 :]]
    odd = (None, True, "", "x" * 5000, {"b64": "!"}, {"b64": "QQ=="}, [], {}, [[[]]], 1.5, float("nan"), 10**400, -0.0)
    if rng.random() < 0.4:
        return int(rng.choice(np.array(BORDERS, np.int64)))
    return odd[int(rng.integers(len(odd)))]
