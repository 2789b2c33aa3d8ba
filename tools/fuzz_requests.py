"""Requests that nobody should send to a model server, for tools/fuzz_server.py: all from one `random.Random`."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "tiny"


def any_json(chance: random.Random, depth: int = 0) -> Any:
    """A random JSON value."""
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: chance.choice([True, False]),
        lambda: chance.choice(
            [0, 1, -1, 99, 100, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**40, chance.randint(0, 99)]
        ),
        lambda: chance.choice([0.5, 1.0, -0.0, 1e39, 1e308, float("nan"), float("inf"), chance.random()]),
        lambda: "".join(chance.choice(string.printable + "é漢\u0000\ud800") for _ in range(chance.randint(0, 8))),
        lambda: {"b64": chance.choice(["", "AAAA", "!", "AAA", 5, None])},
    ]
    if depth < 5:
        kinds += [
            lambda: [any_json(chance, depth + 1) for _ in range(chance.randint(0, 4))],
            lambda: [any_json(chance, depth + 1)] * chance.randint(0, 4),
            lambda: {chance.choice(["dense", "user", "b64", "k", "x"]): any_json(chance, depth + 1)},
        ]
    return chance.choice(kinds)()


def valid_bodies() -> dict[str, list[Any]]:
    """Good bodies by the method of their path."""
    from tests.savedmodels.server.tiny_models import predict_inputs

    inputs = predict_inputs(3)
    example = {"user": 3, "dense": [0.5, 1.0]}
    return {
        "predict": [
            {"signature_name": "predict", "inputs": inputs},
            {"signature_name": "rank", "inputs": {"dense": [[0.5, 1.0]], "user": [1, 2, 3], "k": 2}},
            {"signature_name": "echo", "instances": ["a", {"b64": "AAAA"}]},
            {"signature_name": "mean", "inputs": {"x": [1.0, 2.0]}},
            {"signature_name": "mean", "instances": [{"x": 1.0}, {"x": 2.0}]},
            {"inputs": ["a"]},
        ],
        "classify": [{"signature_name": "classify", "examples": [example], "context": {"user": 2}}],
        "regress": [{"signature_name": "regress", "examples": [example, example]}],
    }


def changed(chance: random.Random, value: Any) -> Any:
    """A value with one place of it changed."""
    if chance.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return any_json(chance)
    if isinstance(value, dict):
        name = chance.choice(list(value))
        action = chance.random()
        if action < 0.15:
            return {key: each for key, each in value.items() if key != name}
        if action < 0.3:
            return {**value, chance.choice([name[:-1], name + "x", "", "é"]): any_json(chance)}
        return {**value, name: changed(chance, value[name])}
    position = chance.randrange(len(value))
    if chance.random() < 0.2:
        return value[:position] + value[position + 1 :] * chance.randint(1, 2000)
    return [*value[:position], changed(chance, value[position]), *value[position + 1 :]]


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Bytes with bits flipped, cut, doubled or put in."""
    changed_data = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        action = chance.random()
        place = chance.randrange(len(changed_data) + 1)
        if action < 0.6 and changed_data:
            changed_data[place % len(changed_data)] ^= 1 << chance.randrange(8)
        elif action < 0.75:
            del changed_data[place:]
        elif action < 0.9:
            changed_data[place:place] = chance.randbytes(chance.randint(1, 9))
        else:
            changed_data += changed_data[place:]
    return bytes(changed_data)


def rest_request(chance: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers."""
    bodies = valid_bodies()
    verb = chance.choice(list(bodies))
    body = chance.choice(bodies[verb])
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        body = changed(chance, body)
    data = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        data = flipped(chance, data)
    if chance.random() < 0.02:
        data = b"[" * chance.choice([1000, 200_000]) + data
    path = f"/v1/models/{MODEL}:{verb}"
    if chance.random() < 0.25:
        pieces = [
            "/v1",
            "/models",
            f"/{MODEL}",
            "/versions",
            "/1",
            "/labels",
            "/x",
            "/metadata",
            ":predict",
            "%00",
            "//",
        ]
        pieces += ["/../", "?a=b", "%zz", ":regress", f"/{2**70}", "/é".encode().decode("latin-1"), "/healthz", "#"]
        path = "/" + "".join(chance.choice(pieces) for _ in range(chance.randint(1, 7)))
    method = "POST" if chance.random() < 0.8 else chance.choice(["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
    headers = {}
    if chance.random() < 0.2:
        name = chance.choice(["Content-Type", "Accept", "X-Long", "Expect", "Content-Encoding", "Connection", "Range"])
        headers[name] = chance.choice(["gzip", "close", "100-continue", "x" * 5000, "application/json", "", "\x01"])
    return method, path, data, headers


def broken_http(chance: random.Random) -> bytes:
    """What is hardly HTTP."""
    post = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: x\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n"
    body = b'{"signature_name": "slow", "inputs": [1]}'
    whole = post + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    lines = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\r\n\r\n",
        post + b"Content-Length: -5\r\n\r\n",
        post + b"Content-Length: 99999999999999\r\n\r\n{}",
        post + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        post + chunks + b"\r\n2\r\n{}\r\n0\r\n\r\n",
        post + chunks + b"\r\n%x;a=b\r\n%s\r\n0\r\nA: b\r\n\r\n" % (len(body), body),
        post + chunks + b"\r\nffffffffffff\r\n{}",
        post + chunks + b"Content-Encoding: gzip\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        post + b"\r\n{}",
        post + b"Content-Length: 10\r\n\r\n{}",
        post + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}",
        whole,
        whole * 40,
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HEAD /healthz HTTP/1.0\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\nabc",
    ]
    data = chance.choice(lines)
    return flipped(chance, data) if chance.random() < 0.5 else data


def valid_messages() -> list[tuple[str, type, bytes]]:
    """(path, class, bytes) of good requests."""
    import numpy as np

    from savedmodels.wire import protos
    from savedmodels.wire.tensors import to_proto
    from tests.savedmodels.server.tiny_models import predict_inputs

    found = []
    dtypes = {"dense": np.float32, "genres_weights": np.float32, "x": np.float32, "k": np.int32}
    text = np.array([b"a", b"bc"], object)
    by_signature: dict[str, dict[str, Any]] = {
        "predict": predict_inputs(3),
        "rank": {"dense": [[0.5, 1.0]], "user": [1, 2, 3], "k": 2},
        "mean": {"x": [0.5, 1.0]},
        "echo": {"text": text},
        "serving_default": {"examples": text},
        "": {"examples": text},
        "nope": {},
    }
    for signature, inputs in by_signature.items():
        request = protos.predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            array = value if value is text else np.array(value, dtypes.get(name, np.int64))
            request.inputs[name].CopyFrom(to_proto(array))
        found += [("PredictionService/Predict", request)] * (3 if signature in ("predict", "rank") else 1)
    for kind, method, name in (
        (protos.classification_pb2.ClassificationRequest, "Classify", "classify"),
        (protos.regression_pb2.RegressionRequest, "Regress", "regress"),
    ):
        request = kind()
        request.model_spec.name = MODEL
        request.model_spec.signature_name = name
        example = request.input.example_list.examples.add()
        example.features.feature["user"].int64_list.value.append(3)
        example.features.feature["dense"].float_list.value.extend([1.0, 2.0])
        found.append((f"PredictionService/{method}", request))
    request = protos.inference_pb2.MultiInferenceRequest()
    request.tasks.add().model_spec.name = MODEL
    found.append(("PredictionService/MultiInference", request))
    request = protos.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = MODEL
    found.append(("PredictionService/GetModelMetadata", request))
    request = protos.get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    found.append(("ModelService/GetModelStatus", request))
    # a folder that does not exist: whatever else is changed, no model is
    request = protos.model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(
        name=MODEL, base_path="/nonexistent/folder", model_platform="tensorflow"
    )
    found.append(("ModelService/HandleReloadConfigRequest", request))
    return [(path, type(message), message.SerializeToString()) for path, message in found]


def is_harmless_reload(kind: type, data: bytes) -> bool:
    """Whether a reload names no folder that exists; an empty list would unload the model, as it should."""
    try:
        config = kind.FromString(data).config
    except Exception:
        return True
    paths = [Path(entry.base_path or "/nonexistent") for entry in config.model_config_list.config]
    if config.WhichOneof("config") != "model_config_list":
        return True
    try:
        return bool(paths) and not any(path.exists() for path in paths)
    except (OSError, ValueError):
        return True


def change(chance: random.Random, message: Any, depth: int = 0) -> None:
    """Sets random fields of a message to random values."""
    fields = list(message.DESCRIPTOR.fields)
    for each in chance.sample(fields, min(len(fields), chance.randint(1, 2))):
        try:
            _set(chance, message, each, depth)
        except (ValueError, TypeError, AttributeError, UnicodeError):
            continue  # a value that the field cannot have


def _set(chance: random.Random, message: Any, each: Any, depth: int) -> None:
    is_map = each.message_type is not None and each.message_type.GetOptions().map_entry
    if is_map:
        entries = getattr(message, each.name)
        key = chance.choice([*entries, "x", ""])
        if each.message_type.fields_by_name["value"].message_type is not None and depth < 4:
            change(chance, entries[key], depth + 1)
        return
    if each.message_type is not None:
        if depth < 4:
            held = getattr(message, each.name)
            change(chance, held.add() if each.is_repeated else held, depth + 1)
        return
    value = chance.choice([0, 1, -1, 3, 7, 23, 2**31 - 1, 2**63 - 1, -(2**63), 0.5, float("nan"), "", "user", b"\x00"])
    if each.is_repeated:
        getattr(message, each.name).extend([value] * chance.choice([1, 3, 5000]))
    else:
        setattr(message, each.name, value)
