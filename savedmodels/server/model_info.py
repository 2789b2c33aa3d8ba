"""Status and metadata of models, as TensorFlow Serving's protos have them."""

from __future__ import annotations

from typing import Any

from savedmodels.server.errors import ServingError
from savedmodels.server.inference import Target
from savedmodels.server.store import ModelStore
from savedmodels.wire.protos import get_model_metadata_pb2, get_model_status_pb2
from tfdlrm.checks import quoted

SIGNATURE_DEF = "signature_def"
# error_codes.proto, of those that a version ends with
ERROR_CODES = {"OK": 0, "UNKNOWN": 2, "DATA_LOSS": 15}


def model_status(store: ModelStore, target: Target) -> Any:
    """A `GetModelStatusResponse`: of one version, or of all there are, newest first.

    Raises:
        ServingError: NOT_FOUND.
    """
    model = store.model(target.model)
    number = target.version
    if target.label:
        with model.leased(label=target.label) as lease:
            number = lease.number
    versions = [v for v in model.statuses() if number is None or v.number == number]
    if not versions:
        if number is not None:
            raise ServingError("NOT_FOUND", f"version {number} of model {quoted(target.model)} is not here.")
        raise ServingError("NOT_FOUND", f"Could not find any versions of model {quoted(target.model)}.")
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add()
        entry.version = version.number
        entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(version.state)
        entry.status.error_code = ERROR_CODES[version.error_code]
        entry.status.error_message = version.error_message
    return response


def model_metadata(store: ModelStore, target: Target) -> Any:
    """A `GetModelMetadataResponse` with the signatures.

    Raises:
        ServingError: NOT_FOUND.
    """
    with store.model(target.model).leased(target.version, target.label) as lease:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = target.model
        response.model_spec.version.value = lease.number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in lease.model.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response
