"""The client that speaks gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from savedmodels.client.base import Arrays, Asked, Client, ModelMetadata, VersionStatus, check_outputs
from savedmodels.client.errors import BY_CODE, ClientError, InvalidRequestError, ServerError
from savedmodels.wire.signatures import SignatureSpec, from_proto, read_signatures

if TYPE_CHECKING:
    import grpc

SIGNATURE_DEF = "signature_def"
MAX_RESPONSE_BYTES = 2**31 - 1
# gRPC waits between two tries to connect, too; its own first wait of 1 s would outlast several retries.
FIRST_RECONNECT_MILLISECONDS = 100
MAX_RECONNECT_MILLISECONDS = 2000


class GrpcClient(Client):
    """A client that speaks gRPC. Its connection is shared by all threads, and not encrypted.

    Args:
        address: `HOST:PORT`.
        model, timeout_seconds, max_rows, retry: as in `Client`.

    Raises:
        ImportError: the packages grpcio and tensorflow-serving-api are not installed.

    Example:
        >>> with GrpcClient("127.0.0.1:8500", "clicks") as client:
        ...     client.predict({"dense": [[0.5, 1.0]], "item": [7]}, signature="predict")
    """

    def __init__(self, address: str, model: str = "default", **options: Any) -> None:
        super().__init__(address, model, **options)
        try:
            import grpc
        except ModuleNotFoundError as error:
            raise ImportError(
                'The package grpcio is not installed. Install it: pip install "tfdlrm[serving]"'
            ) from error
        from savedmodels.wire import protos, tensors

        self._protos = protos
        self._tensors = tensors
        self._channel: grpc.Channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", FIRST_RECONNECT_MILLISECONDS),
                ("grpc.min_reconnect_backoff_ms", FIRST_RECONNECT_MILLISECONDS),
                ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MILLISECONDS),
            ],
        )

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _send_predict(self, spec: SignatureSpec, arrays: Arrays, asked: Asked, timeout_seconds: float) -> Arrays:
        request = self._protos.predict_pb2.PredictRequest()
        self._fill(request.model_spec, asked, spec.name)
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(self._tensors.to_proto(array))
        service = self._protos.PREDICTION_SERVICE
        response = self._ask(service, "Predict", request, self._protos.predict_pb2.PredictResponse, timeout_seconds)
        try:
            outputs = {
                name: self._tensors.from_proto(name, proto, MAX_RESPONSE_BYTES)
                for name, proto in response.outputs.items()
            }
        except ValueError as error:
            raise ServerError(f"{self.address} answered with a tensor that cannot be read: {error}") from error
        return check_outputs(spec, outputs)

    def _send_status(self, asked: Asked, timeout_seconds: float) -> list[VersionStatus]:
        protos = self._protos
        request = protos.get_model_status_pb2.GetModelStatusRequest()
        self._fill(request.model_spec, asked)
        kind = protos.get_model_status_pb2.GetModelStatusResponse
        response = self._ask(protos.MODEL_SERVICE, "GetModelStatus", request, kind, timeout_seconds)
        code = type(response).DESCRIPTOR.fields_by_name["model_version_status"].message_type
        codes = code.fields_by_name["status"].message_type.fields_by_name["error_code"].enum_type.values_by_number
        states = protos.get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(
                version=entry.version,
                state=states.Name(entry.state),
                error_code=codes[entry.status.error_code].name,
                error_message=entry.status.error_message,
            )
            for entry in response.model_version_status
        ]

    def _send_metadata(self, asked: Asked, timeout_seconds: float) -> ModelMetadata:
        metadata_pb2 = self._protos.get_model_metadata_pb2
        request = metadata_pb2.GetModelMetadataRequest(metadata_field=[SIGNATURE_DEF])
        self._fill(request.model_spec, asked)
        kind = metadata_pb2.GetModelMetadataResponse
        response = self._ask(self._protos.PREDICTION_SERVICE, "GetModelMetadata", request, kind, timeout_seconds)
        held = metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(held)
        signatures, refusals = read_signatures(held.signature_def, from_proto)
        version = response.model_spec.version.value
        return ModelMetadata(model=self.model, version=version, signatures=signatures, refusals=refusals)

    def _fill(self, model_spec: Any, asked: Asked, signature: str = "") -> None:
        model_spec.name = self.model
        model_spec.signature_name = signature
        if asked.version is not None:
            model_spec.version.value = asked.version
        elif asked.label:
            model_spec.version_label = asked.label

    def _ask(self, service: str, method: str, request: Any, answer: Any, timeout_seconds: float) -> Any:
        import grpc

        call = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return call(request, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> ClientError:
        name, details = error.code().name, error.details() or ""
        kind = BY_CODE.get(name, ServerError)
        if name == "RESOURCE_EXHAUSTED" and "larger than max" in details:
            kind = InvalidRequestError
        return kind(f"{self.address}: {name}: {details}")
