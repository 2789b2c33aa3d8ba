"""A smoke test of an export: a fresh process with plain TensorFlow answers one request over HTTP.

This is not a server for anything else. It answers a single request on the loopback interface and ends; there is no
batching, no reload and no metrics. What it shows is that the export needs nothing of tfdlrm: the process that
answers cannot import it. For production, give the export to TensorFlow Serving, whose REST form
(`{"signature_name": "predict", "inputs": {...}}` -> `{"outputs": {...}}`) this follows.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tfdlrm.checks import quoted

HOST = "127.0.0.1"
SIGNATURE = "predict"
PATH = "/v1/models/model:predict"
START_SECONDS = 120.0  # importing TensorFlow takes 3 to 8 s, more on a busy machine
REQUEST_SECONDS = 60.0
MAX_REQUEST_BYTES = 16 * 2**20
EXIT_CANNOT_SERVE = 2


def serve_once(version_folder: str | os.PathLike[str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Loads an export in a fresh process and has it answer one request.

    Args:
        version_folder: what `export` returned.
        inputs: input name -> nested lists, the batch first.

    Returns:
        Output name -> nested lists.

    Raises:
        RuntimeError: the process did not start, or refused the request; the message says why.

    Example:
        >>> serve_once(folder, {"dense": [[0.5, 1.0]], "item": [7]})["probability"]
        [[0.31]]
    """
    with tempfile.TemporaryFile("w+") as notes:
        command = [sys.executable, "-P", str(Path(__file__).resolve()), os.fspath(version_folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=notes, text=True)
        assert process.stdout is not None
        try:
            announced = process.stdout.readline()  # the process ends by itself where it cannot start
            if not announced:
                process.wait(START_SECONDS)
                notes.seek(0)
                lines = notes.read().strip().splitlines() or ["no message"]
                raise RuntimeError(f"{version_folder}: the serving process ended: {lines[-1]}")
            return _ask(json.loads(announced)["port"], inputs)
        finally:
            process.stdout.close()
            try:
                process.wait(REQUEST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ask(port: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
    # http.client and not urllib: a proxy of the environment has no business with the loopback interface
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)
    try:
        body = json.dumps({"signature_name": SIGNATURE, "inputs": inputs})
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"the serving process answered {response.status}: {answer['error']}")
    outputs: dict[str, Any] = answer["outputs"]
    return outputs


class _OneRequest(BaseHTTPRequestHandler):
    signature: Any = None  # set by `_serve`

    def do_POST(self) -> None:
        """Answers a request in TensorFlow Serving's columnar form."""
        try:
            self._send(http.HTTPStatus.OK, {"outputs": self._outputs()})
        except Exception as error:  # whatever a request brings, the client is told and not left waiting
            self._send(http.HTTPStatus.BAD_REQUEST, {"error": " ".join(str(error).split())})

    def _outputs(self) -> dict[str, Any]:
        import tensorflow as tf

        length = int(self.headers.get("Content-Length") or 0)
        if self.path != PATH or not 0 < length <= MAX_REQUEST_BYTES:
            raise ValueError(f"POST {PATH} with a body of 1 to {MAX_REQUEST_BYTES} bytes is expected.")
        given = json.loads(self.rfile.read(length))["inputs"]
        _, specs = self.signature.structured_input_signature
        if set(given) != set(specs):
            missing, unknown = sorted(set(specs) - set(given)), sorted(set(given) - set(specs))
            raise ValueError(f"inputs that are missing: {missing}; that are unknown: {unknown}.")
        tensors = {}
        for name, spec in specs.items():
            try:
                tensors[name] = tf.constant(given[name], spec.dtype)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"input {quoted(name)}: {spec.dtype.name} of shape {spec.shape} is expected: {error}"
                ) from error
        return {name: output.numpy().tolist() for name, output in self.signature(**tensors).items()}

    def _send(self, status: http.HTTPStatus, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Says nothing: stdout carries the port, stderr the reason of a failure."""


def _serve(version_folder: str, port: int) -> int:
    try:
        server = HTTPServer((HOST, port), _OneRequest)
    except OSError as error:
        print(f"port {port}: {error.strerror}. Give another one, or 0 for any that is free.", file=sys.stderr)
        return EXIT_CANNOT_SERVE
    for package in ("tfdlrm", "savedmodels", "pipelines"):
        sys.modules[package] = None  # type: ignore[assignment]  # importing it is an error from here on
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    try:
        model = tf.saved_model.load(version_folder)
        _OneRequest.signature = model.signatures[SIGNATURE]
    except Exception as error:
        print(f"{version_folder} cannot be loaded: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_CANNOT_SERVE
    with server:
        print(json.dumps({"port": server.server_port}), flush=True)
        server.timeout = REQUEST_SECONDS
        server.handle_request()
    return 0


def _main() -> int:
    parser = argparse.ArgumentParser(description="Answer one request with an export, then end (a smoke test).")
    parser.add_argument("version_folder", help="the numbered folder of an export")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    arguments = parser.parse_args()
    return _serve(arguments.version_folder, arguments.port)


if __name__ == "__main__":
    sys.exit(_main())
