"""TensorFlow Serving's protos, imported without TensorFlow.

Their modules import `tensorflow.core...`, and importing anything below `tensorflow` first runs TensorFlow's own
`__init__`: 6 s and 640 MB (TensorFlow 2.21). The generated proto modules need nothing of it, so while they are imported
a bare module stands in for the package: 0.05 s and 17 MB. TensorFlow can be imported before or after.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator

INSTALL = 'Install it with: pip install "tfdlrm[serving]"'


@contextlib.contextmanager
def _bare_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.machinery.PathFinder.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("TensorFlow Serving's protos need the package tensorflow, which is not installed.")
    bare = types.ModuleType("tensorflow")
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules["tensorflow"] = bare
    try:
        yield
    finally:
        # the next `import tensorflow` is a real one
        del sys.modules["tensorflow"]


try:
    with _bare_tensorflow():
        from tensorflow.core.example import example_pb2
        from tensorflow.core.framework import tensor_pb2, types_pb2
        from tensorflow.core.protobuf import meta_graph_pb2
        from tensorflow_serving.apis import (
            classification_pb2,
            get_model_metadata_pb2,
            get_model_status_pb2,
            inference_pb2,
            input_pb2,
            model_management_pb2,
            model_pb2,
            predict_pb2,
            prediction_log_pb2,
            regression_pb2,
        )
        from tensorflow_serving.config import model_server_config_pb2
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("tensorflow_serving"):
        raise
    raise ImportError(f"The package tensorflow-serving-api is not installed. {INSTALL}") from error

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"


def register_services() -> None:
    """Makes both services known to protobuf's pool, where gRPC's reflection looks for them."""
    for name in ("prediction_service_pb2", "model_service_pb2"):
        # of tensorflow-serving-api 2.19 the second fails with a newer protobuf, after it has registered its file
        with contextlib.suppress(AttributeError):
            importlib.import_module(f"tensorflow_serving.apis.{name}")


__all__ = [
    "INSTALL",
    "MODEL_SERVICE",
    "PREDICTION_SERVICE",
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "predict_pb2",
    "prediction_log_pb2",
    "register_services",
    "regression_pb2",
    "tensor_pb2",
    "types_pb2",
]
