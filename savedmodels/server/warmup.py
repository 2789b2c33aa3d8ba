"""Requests that come with an export, replayed before the first real one: `assets.extra/tf_serving_warmup_requests`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from savedmodels.server.examples import INPUTS, serialized_examples
from savedmodels.server.loading import LoadedModel
from savedmodels.wire.batches import check_arrays, check_names
from savedmodels.wire.protos import prediction_log_pb2
from savedmodels.wire.tensors import from_proto

logger = logging.getLogger("tfdlrm.serve")

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TensorFlow Serving's limit
MAX_BYTES = 2**30


def warm_up(model: LoadedModel, folder: Path) -> int:
    """Replays a version's warm-up requests: Predict, Classify, Regress, MultiInference.

    Returns:
        How many were replayed; 0 where there is no file.

    Raises:
        ValueError, ServingError: a request does not fit the model, or there are more than `MAX_RECORDS`.
        tf.errors.OpError: the file is damaged, or the model failed on a request.
    """
    path = folder / WARMUP_FILE
    if not path.is_file():
        return 0
    import tensorflow as tf

    num_replayed = 0
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        if num_replayed == MAX_RECORDS:
            raise ValueError(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}. Write fewer.")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise ValueError(f"Failed to parse warmup record {num_replayed} from {path}. Write it again.") from None
        _replay(model, log, path)
        num_replayed += 1
    return num_replayed


def _replay(model: LoadedModel, log: Any, path: Path) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        request = log.predict_log.request
        arrays = {name: from_proto(name, proto, MAX_BYTES) for name, proto in request.inputs.items()}
        _run(model, request.model_spec.signature_name, arrays)
    elif kind in ("classify_log", "regress_log"):
        request = getattr(log, kind).request
        arrays = {INPUTS: serialized_examples(request.input, MAX_BYTES, MAX_BYTES)}
        _run(model, request.model_spec.signature_name, arrays)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        arrays = {INPUTS: serialized_examples(request.input, MAX_BYTES, MAX_BYTES)}
        for task in request.tasks:
            _run(model, task.model_spec.signature_name, arrays)
    else:
        logger.warning("%s: a request of the form %s is left out", path, kind)


def _run(model: LoadedModel, signature_name: str, arrays: Mapping[str, np.ndarray]) -> None:
    signature = model.signature(signature_name)
    check_names(signature, list(arrays))
    check_arrays(signature, arrays, MAX_BYTES, exact_shapes=model.exact_shapes)
    model.run(signature.name, arrays)
