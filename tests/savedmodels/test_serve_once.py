"""An export answers in a process that has plain TensorFlow and cannot import tfdlrm."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from http.server import HTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import savedmodels.serve_once as serving
from savedmodels.export import export
from savedmodels.serve_once import serve_once
from tests.savedmodels.small_model import SPEC, columnar, features


@pytest.fixture(scope="module")
def version_folder(model, tmp_path_factory) -> Path:
    return export(model, tmp_path_factory.mktemp("export"), spec=SPEC)


@pytest.fixture
def request_inputs() -> dict:
    return {name: np.asarray(value).tolist() for name, value in columnar(features(3, 7)).items()}


@pytest.fixture
def ask(version_folder, monkeypatch):
    """Sends one request to the handler, in a thread of this process."""
    signature = tf.saved_model.load(str(version_folder)).signatures["predict"]
    monkeypatch.setattr(serving._OneRequest, "signature", signature)
    server = HTTPServer((serving.HOST, 0), serving._OneRequest)

    def send(body: str, path: str = serving.PATH) -> tuple[int, dict]:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        connection = http.client.HTTPConnection(serving.HOST, server.server_port, timeout=30)
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        thread.join()
        return response.status, answer

    yield send
    server.server_close()


@pytest.mark.multiprocess
def test_a_fresh_process_gives_the_live_models_probability(model, version_folder, request_inputs):
    outputs = serve_once(version_folder, request_inputs)
    logit = model(features(3, 7), training=False).numpy()
    np.testing.assert_allclose(outputs["logit"], logit, rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs["probability"], 1 / (1 + np.exp(-logit.astype("f8"))), rtol=0, atol=1e-6)


@pytest.mark.multiprocess
def test_an_export_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=f"{tmp_path} cannot be loaded"):
        serve_once(tmp_path, {})


@pytest.mark.multiprocess
def test_a_port_in_use_is_named(version_folder):
    with socket.create_server((serving.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-P", serving.__file__, str(version_folder), "--port", str(port)]
        process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr == f"port {port}: Address already in use. Give another one, or 0 for any that is free.\n"


def test_a_good_request_is_answered(ask, request_inputs):
    status, answer = ask(json.dumps({"inputs": request_inputs}))
    assert status == 200
    assert np.shape(answer["outputs"]["probability"]) == (3, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "inputs that are missing: ['user']; that are unknown: []"),
        ({"usr": [1, 2, 3]}, "missing: []; that are unknown: ['usr']"),
        ({"user": [1, 2, "x"]}, "input 'user': int64 of shape (None,) is expected"),
        ({"user": [1, 2, 300]}, "id 300 in row 2"),
        ({"tags_row_lengths": [0, 0, 0]}, "tags_row_lengths"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(ask, request_inputs, change, message):
    inputs = {name: value for name, value in {**request_inputs, **change}.items() if value is not None}
    if "tags_row_lengths" in change:
        inputs["tags"] = [1]
    status, answer = ask(json.dumps({"inputs": inputs}))
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize(("body", "path"), [("{", serving.PATH), ("[]", serving.PATH), ("{}", "/"), ("", serving.PATH)])
def test_garbage_is_answered_with_an_error(ask, body, path):
    status, answer = ask(body, path)
    assert status == 400
    assert answer["error"]
