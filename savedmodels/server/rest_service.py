"""TensorFlow Serving's REST interface, without sockets: a method, a path and a body in, a status and a body out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import numpy as np
from google.protobuf import json_format

from savedmodels.server import examples, json_requests
from savedmodels.server.errors import HTTP_STATUS, ServingError, from_exception
from savedmodels.server.inference import Inference, Target
from savedmodels.server.lifetimes import Call, Lifetime
from savedmodels.server.metrics import CONTENT_TYPE, Metrics, Request
from savedmodels.server.model_info import SIGNATURE_DEF, model_metadata, model_status
from savedmodels.versions import MAX_VERSION
from savedmodels.wire.protos import get_model_metadata_pb2
from savedmodels.wire.signatures import SignatureSpec

logger = logging.getLogger("tfdlrm.serve")

METRICS_PATH = "/monitoring/prometheus/metrics"
LIVE_PATH, READY_PATH = "/healthz", "/readyz"
_WHO = r"/v1/models/([^/:]+)(?:/versions/(\d{1,19})|/labels/([^/:]+))?"
_PREDICTION = re.compile(_WHO + r":(classify|regress|predict)", re.IGNORECASE | re.ASCII)
_MODEL = re.compile(_WHO + r"(/metadata)?", re.IGNORECASE | re.ASCII)
JSON = "application/json"
_BY_EXAMPLES = {
    "classify": (examples.CLASSIFY, json_requests.classify_answer),
    "regress": (examples.REGRESS, json_requests.regress_answer),
}


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """A response."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(status: int, content: Any, **headers: str) -> HttpAnswer:
    """A response of JSON; NaN and Infinity are written as those words, as TensorFlow Serving does."""
    return HttpAnswer(status=status, body=json.dumps(content).encode(), headers=headers)


class RestService:
    """Answers requests that an HTTP server has read.

    Args:
        inference: runs models.
        metrics: told of every request; and a page of its own.
        is_ready: asked for `/readyz`.
    """

    def __init__(self, inference: Inference, metrics: Metrics, is_ready: Callable[[], bool]) -> None:
        self._inference = inference
        self._metrics = metrics
        self._is_ready = is_ready

    def answer(self, method: str, path: str, body: bytes | bytearray, life: Lifetime) -> HttpAnswer:
        """Answers a request; never raises.

        Args:
            method: GET or POST.
            path: with its escapes; a query after `?` is left out.
            body: as it came.
            life: how long somebody waits for the answer.
        """
        path = path.partition("?")[0]
        try:
            if method == "GET":
                return self._get(path)
            found = _PREDICTION.fullmatch(path)
            if found is None:
                raise _no_such_path(method, path, bool(_MODEL.fullmatch(path)))
            verb = found.group(4).lower()
            with self._metrics.request("rest", verb.capitalize()) as seen:
                return self._post(verb, _target(found), body, seen, life)
        except Exception as error:
            served = from_exception(error)
            if served is not error and served.code == "INTERNAL":
                logger.error("%s %s failed", method, path[:200], exc_info=error)
            return json_answer(HTTP_STATUS[served.code], {"error": served.message})

    def _get(self, path: str) -> HttpAnswer:
        if path == LIVE_PATH:
            return json_answer(200, {"live": True})
        if path == READY_PATH:
            is_ready = self._is_ready()
            return json_answer(200 if is_ready else 503, {"ready": is_ready})
        if path == METRICS_PATH:
            return HttpAnswer(status=200, body=self._metrics.page(), content_type=CONTENT_TYPE)
        found = _MODEL.fullmatch(path)
        if found is None:
            raise _no_such_path("GET", path, bool(_PREDICTION.fullmatch(path)))
        is_metadata = found.group(4) is not None
        with self._metrics.request("rest", "GetModelMetadata" if is_metadata else "GetModelStatus"):
            target = _target(found)
            if is_metadata:
                return json_answer(200, _metadata_json(model_metadata(self._inference.store, target)))
            return json_answer(200, _to_json(model_status(self._inference.store, target)))

    def _post(self, verb: str, target: Target, body: bytes | bytearray, seen: Request, life: Lifetime) -> HttpAnswer:
        with self._inference.turn(len(body), life) as turn:
            return self._predict(verb, target, json_requests.parse_body(body), Call(life=life, seen=seen, turn=turn))

    def _predict(self, verb: str, target: Target, parsed: dict[str, Any], call: Call) -> HttpAnswer:
        target = Target(
            model=target.model,
            version=target.version,
            label=target.label,
            signature=json_requests.signature_name(parsed),
        )
        if verb == "predict":
            json_requests.check_predict(parsed)
            in_rows = json_requests.INSTANCES in parsed

            def make_inputs(signature: SignatureSpec) -> dict[str, np.ndarray]:
                inputs = json_requests.predict_inputs(signature, parsed)
                parsed.clear()  # its memory
                return inputs

            answer = self._inference.predict(target, make_inputs, call=call, check_signature=json_requests.check_dtypes)
            return json_answer(200, json_requests.predict_answer(answer.outputs, in_rows=in_rows))
        request_input = json_requests.example_input(parsed)
        parsed.clear()
        method, to_json = _BY_EXAMPLES[verb]
        answer = self._inference.predict(
            target,
            examples.input_maker(request_input, self._inference.max_rows, self._inference.max_bytes),
            call=call,
            check_signature=method.check,
        )
        return json_answer(200, to_json(method.result(answer.outputs)))


def _target(found: re.Match[str]) -> Target:
    model, version, label = found.group(1), found.group(2), found.group(3)
    if version is not None and int(version) > MAX_VERSION:
        raise ServingError("INVALID_ARGUMENT", f"version {version} is beyond int64.")
    return Target(
        model=unquote(model), version=None if version is None else int(version), label=unquote(label) if label else ""
    )


def _no_such_path(method: str, path: str, is_other_method: bool) -> ServingError:
    shown = path[:200]
    if is_other_method:
        other = "GET" if method == "POST" else "POST"
        return ServingError("INVALID_ARGUMENT", f"{method} {shown}: this path is for {other}.")
    return ServingError(
        "NOT_FOUND",
        f"{method} {shown}: there is nothing here. POST /v1/models/NAME[/versions/N|/labels/L]:predict (or :classify, "
        f":regress); GET /v1/models/NAME[/versions/N|/labels/L][/metadata], {LIVE_PATH}, {READY_PATH}, {METRICS_PATH}.",
    )


def _to_json(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _metadata_json(response: Any) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    return {"model_spec": _to_json(response.model_spec), "metadata": {SIGNATURE_DEF: _to_json(signatures)}}
