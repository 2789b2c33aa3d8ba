"""This project's server under the serving benchmark: `tfdlrm serve` in a process of its own, asked over gRPC.

tfdlrm-server-rank, tfdlrm-server-predict     signatures of our export

Requests are serialized beforehand; sending one, and the answer as an array, is what is timed. Client and server share
this machine's cores.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
import numpy as np
from serving_requests import Query
from serving_side import EXPORT_FOLDER, MakeCall, run_side
from side_serving_tfdlrm import PROBABILITY, RANK, inputs_of, versions

from savedmodels.wire import protos, tensors

MODEL = "benchmark"
METHOD = f"/{protos.PREDICTION_SERVICE}/Predict"
ANY_PORT = "0"
REQUEST_SECONDS = 60.0
MAX_RESPONSE_BYTES = 2**20


def start_server(folder: Path, threads: int) -> str:
    """Starts `tfdlrm serve` on the versions in a folder; it ends with this process.

    Returns:
        Its gRPC address.

    Raises:
        SystemExit: it ended, or did not say its address.
    """
    variables = {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", "tfdlrm", "serve", str(folder), "--name", MODEL]
    command += ["--grpc-port", ANY_PORT, "--rest-port", ANY_PORT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables})
    assert process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.terminate)  # runs first
    address = ""
    for line in process.stdout:
        if found := re.match(r"gRPC: (\S+)", line):
            address = found[1]
        if line.strip() == "ready" and address:
            return address
    raise SystemExit("tfdlrm serve ended before it was ready")


def request_of(query: Query, signature: str) -> bytes:
    """A serialized PredictRequest."""
    request = protos.predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = MODEL, signature
    request.output_filter.append(PROBABILITY)
    for name, value in inputs_of(query, signature).items():
        request.inputs[name].CopyFrom(tensors.to_proto(np.asarray(value)))
    return request.SerializeToString()


def through_grpc(signature: str, folder: Path, threads: int) -> tuple[MakeCall, Mapping[str, str]]:
    """PredictionService.Predict."""
    channel = grpc.insecure_channel(start_server((folder / EXPORT_FOLDER).parent, threads))
    predict = channel.unary_unary(METHOD, response_deserializer=protos.predict_pb2.PredictResponse.FromString)

    def make_call(query: Query) -> Callable[[], np.ndarray]:
        request = request_of(query, signature)

        def call() -> np.ndarray:
            response = predict(request, timeout=REQUEST_SECONDS)
            return tensors.from_proto(PROBABILITY, response.outputs[PROBABILITY], MAX_RESPONSE_BYTES)

        return call

    return make_call, {**versions(), "grpcio": grpc.__version__}


if __name__ == "__main__":
    run_side(
        __doc__,
        {
            "tfdlrm-server-rank": functools.partial(through_grpc, RANK),
            "tfdlrm-server-predict": functools.partial(through_grpc, "predict"),
        },
    )
