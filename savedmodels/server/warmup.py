"""Requests that come with an export, replayed before the first real one: `assets.extra/tf_serving_warmup_requests`."""

from __future__ import annotations

import logging
from pathlib import Path

from savedmodels.server.loading import LoadedModel
from savedmodels.wire.batches import check_arrays, check_names
from savedmodels.wire.protos import prediction_log_pb2
from savedmodels.wire.tensors import from_proto

logger = logging.getLogger("tfdlrm.serve")

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TensorFlow Serving's limit
MAX_BYTES = 2**30


def warm_up(model: LoadedModel, folder: Path) -> int:
    """Replays a version's warm-up requests of the form Predict.

    Returns:
        How many were replayed; 0 where there is no file.

    Raises:
        ValueError: a request does not fit the model.
        tf.errors.OpError: the file is damaged, or the model failed on a request.
    """
    path = folder / WARMUP_FILE
    if not path.is_file():
        return 0
    import tensorflow as tf

    num_replayed = 0
    for record in tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            logger.warning("%s: a request of another form than Predict is left out", path)
            continue
        request = log.predict_log.request
        signature = model.signature(request.model_spec.signature_name)
        check_names(signature, list(request.inputs))
        arrays = {name: from_proto(name, proto, MAX_BYTES) for name, proto in request.inputs.items()}
        check_arrays(signature, arrays, MAX_BYTES)
        model.run(signature.name, arrays)
        num_replayed += 1
    return num_replayed
