"""TensorFlow Serving's PredictionService and ModelService over gRPC, gRPC's own health service, and reflection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from savedmodels.server import examples
from savedmodels.server.config import from_proto as configs_from_proto
from savedmodels.server.errors import ServingError, from_exception
from savedmodels.server.inference import Inference, Target
from savedmodels.server.lifetimes import Call, Lifetime
from savedmodels.server.metrics import Metrics
from savedmodels.server.model_info import SIGNATURE_DEF, model_metadata, model_status
from savedmodels.server.options import ServerOptions
from savedmodels.wire.batches import check_names
from savedmodels.wire.protos import (
    MODEL_SERVICE,
    PREDICTION_SERVICE,
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    register_services,
    regression_pb2,
)
from savedmodels.wire.signatures import SignatureSpec
from savedmodels.wire.tensors import from_proto, to_proto
from tfdlrm.checks import quoted

logger = logging.getLogger("tfdlrm.serve")

Answer = Callable[[Any, Call], Message]
SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE)


class GrpcService:
    """Answers requests that gRPC has read.

    Args:
        inference: runs models.
        options: limits.
        metrics: told of every request.
    """

    def __init__(self, inference: Inference, options: ServerOptions, metrics: Metrics) -> None:
        self._inference = inference
        self._options = options
        self._metrics = metrics
        self._health = health.HealthServicer()
        self.show_health(is_ready=False)

    def show_health(self, *, is_ready: bool) -> None:
        """What the health service answers from now on, for the server ("") and for each of its services."""
        status = health_pb2.HealthCheckResponse.SERVING if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            self._health.set(service, status)

    def start(self) -> tuple[Any, int]:
        """Binds the port and starts to answer.

        Returns:
            The `grpc.Server`, and its port.

        Raises:
            OSError: the port is in use, or the host is none of this machine.
        """
        server = grpc.server(
            ThreadPoolExecutor(self._options.max_in_flight, thread_name_prefix="grpc"),
            options=[
                ("grpc.max_receive_message_length", self._options.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # else two servers could share a port, unnoticed
            ],
        )
        server.add_generic_rpc_handlers(self._handlers())
        register_services()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        try:
            port = server.add_insecure_port(f"{host}:{self._options.grpc_port}")
        except RuntimeError as error:
            raise OSError(
                f"gRPC port {self._options.grpc_port} of {self._options.host} cannot be bound. "
                "Something else may use it: give another one with --grpc-port, or 0 for any that is free."
            ) from error
        server.start()
        return server, port

    def _handlers(self) -> tuple[Any, ...]:
        prediction = {
            "Predict": (predict_pb2.PredictRequest, self._predict),
            "Classify": (
                classification_pb2.ClassificationRequest,
                self._by_examples(examples.CLASSIFY, classification_pb2.ClassificationResponse),
            ),
            "Regress": (
                regression_pb2.RegressionRequest,
                self._by_examples(examples.REGRESS, regression_pb2.RegressionResponse),
            ),
            "MultiInference": (inference_pb2.MultiInferenceRequest, self._multi_inference),
            "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, self._metadata),
        }
        model = {
            "GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, self._status),
            "HandleReloadConfigRequest": (model_management_pb2.ReloadConfigRequest, self._reload),
        }
        return tuple(
            grpc.method_handlers_generic_handler(
                service, {name: self._handler(name, kind, answer) for name, (kind, answer) in methods.items()}
            )
            for service, methods in ((PREDICTION_SERVICE, prediction), (MODEL_SERVICE, model))
        )

    def _handler(self, method: str, kind: type[Message], answer: Answer) -> Any:
        """Bytes in, bytes out: gRPC would answer what it cannot parse with INTERNAL."""

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                with self._metrics.request("grpc", method) as seen:
                    remaining = context.time_remaining()
                    longest = self._options.request_seconds
                    seconds = longest if remaining is None else min(remaining, longest)
                    life = Lifetime(seconds, lambda: not context.is_active())
                    with self._inference.turn(len(data), life) as turn:
                        call = Call(life=life, seen=seen, turn=turn)
                        return answer(_parsed(kind, data), call).SerializeToString()
            except Exception as error:
                served = from_exception(error)
                if served is not error and served.code == "INTERNAL":
                    logger.error("%s failed", method, exc_info=error)
            context.abort(grpc.StatusCode[served.code], served.message)
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(handle)

    def _predict(self, request: Any, call: Call) -> Message:
        answer = self._inference.predict(
            target_of(request.model_spec),
            lambda signature: self._arrays(signature, request),
            call=call,
            output_filter=list(request.output_filter),
        )
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, answer)
        for name, array in answer.outputs.items():
            response.outputs[name].CopyFrom(to_proto(array))
        return response

    def _arrays(self, signature: SignatureSpec, request: Any) -> dict[str, np.ndarray]:
        check_names(signature, list(request.inputs))
        limit = self._options.max_message_bytes
        return {name: from_proto(name, proto, limit) for name, proto in request.inputs.items()}

    def _examples(self, request: Any) -> Callable[[SignatureSpec], Mapping[str, np.ndarray]]:
        return examples.input_maker(request.input, self._options.max_rows, self._options.max_message_bytes)

    def _by_examples(self, method: examples.ExampleMethod, kind: type[Any]) -> Answer:
        def answer(request: Any, call: Call) -> Message:
            answered = self._inference.predict(
                target_of(request.model_spec), self._examples(request), call=call, check_signature=method.check
            )
            response = kind(result=method.result(answered.outputs))
            _fill(response.model_spec, answered)
            return response

        return answer

    def _multi_inference(self, request: Any, call: Call) -> Message:
        """Classify and Regress of several signatures for the same examples, by one version: that of the first task."""
        examples.check_tasks(request.tasks)
        make_inputs = self._examples(request)
        first = target_of(request.tasks[0].model_spec)
        response = inference_pb2.MultiInferenceResponse()
        with self._inference.store.model(first.model).leased(first.version, first.label) as held:
            for task in request.tasks:
                method = examples.METHODS[task.method_name]
                answer = self._inference.predict(
                    target_of(task.model_spec), make_inputs, call=call, check_signature=method.check, held=held
                )
                result = response.results.add()
                _fill(result.model_spec, answer)
                getattr(result, method.field).CopyFrom(method.result(answer.outputs))
        return response

    def _metadata(self, request: Any, call: Call) -> Message:
        fields = list(request.metadata_field)
        if not fields or any(field != SIGNATURE_DEF for field in fields):
            raise ServingError(
                "INVALID_ARGUMENT",
                f"metadata_field is {[f[:100] for f in fields]}; [{quoted(SIGNATURE_DEF)}] is expected.",
            )
        return model_metadata(self._inference.store, target_of(request.model_spec))

    def _status(self, request: Any, call: Call) -> Message:
        return model_status(self._inference.store, target_of(request.model_spec))

    def _reload(self, request: Any, call: Call) -> Message:
        self._inference.store.reload(configs_from_proto(request.config), call.life.remaining)
        return model_management_pb2.ReloadConfigResponse()


def _parsed(kind: type[Message], data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ServingError("INVALID_ARGUMENT", f"{len(data)} bytes that are no {kind.DESCRIPTOR.name}.") from None


def target_of(model_spec: Any) -> Target:
    """Whom a `ModelSpec` names.

    Raises:
        ServingError: INVALID_ARGUMENT: it has no name.
    """
    if not model_spec.name:
        raise ServingError("INVALID_ARGUMENT", "model_spec.name is empty. Name the model.")
    choice = model_spec.WhichOneof("version_choice")
    return Target(
        model=model_spec.name,
        version=model_spec.version.value if choice == "version" else None,
        label=model_spec.version_label if choice == "version_label" else "",
        signature=model_spec.signature_name,
    )


def _fill(model_spec: Any, answer: Any) -> None:
    model_spec.name = answer.model
    model_spec.version.value = answer.version
    model_spec.signature_name = answer.signature.name
