"""REST as TensorFlow Serving documents it, and an error that names what is wrong for everything else."""

from __future__ import annotations

import base64
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from savedmodels.server.errors import ServingError
from savedmodels.server.json_requests import MAX_JSON_MEMORY, parse_body
from tests.savedmodels.server.conftest import MAX_ROWS, PREDICT, Rest, wait_in_flight
from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits


def test_columns_are_answered_in_columns(rest):
    inputs = predict_inputs(4)
    status, answer = rest.predict({"signature_name": "predict", "inputs": inputs})
    assert status == 200
    assert set(answer) == {"outputs"}
    assert set(answer["outputs"]) == {"probability", "logit", "version"}
    np.testing.assert_allclose(np.ravel(answer["outputs"]["logit"]), predict_logits(inputs), atol=1e-5)
    assert answer["outputs"]["version"] == [1, 1, 1, 1]


def test_rows_are_answered_in_rows(rest):
    rows = [{"text": "a"}, {"text": {"b64": base64.b64encode(b"\xff").decode()}}]
    status, answer = rest.predict({"signature_name": "echo", "instances": rows})
    assert status == 200
    assert answer == {
        "predictions": [
            {"text": "a", "text_bytes": {"b64": "YQ=="}},
            {"text": {"b64": "/w=="}, "text_bytes": {"b64": "/w=="}},
        ]
    }


# to look each up among all would take minutes
MANY_NAMES = ("{" + ",".join(f'"k{i}":0' for i in range(80_000)) + ',"k79999":1}').encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"signature_name": "slow", "instances": [1, 2.0]}, {"predictions": [1, 2]}),
        ({"signature_name": "slow", "instances": [{"steps": 1}, {"steps": 2}]}, {"predictions": [1, 2]}),
        ({"signature_name": "slow", "inputs": [1, 2]}, {"outputs": [1, 2]}),
        ({"signature_name": "slow", "inputs": {"steps": [1, 2]}}, {"outputs": [1, 2]}),
        ({"signature_name": "mean", "inputs": [1, 2]}, {"outputs": 1.5}),
        ({"signature_name": "mean", "inputs": [0.1]}, {"outputs": 0.1}),  # the digits of a float32, not of its float64
    ],
)
def test_a_single_output_goes_without_its_name(rest, body, expected):
    assert rest.predict(body) == (200, expected)


def test_nan_comes_and_goes_as_a_word(rest):
    rest.connection.request("POST", PREDICT, b'{"signature_name": "mean", "inputs": [NaN, 1]}')
    body = rest.connection.getresponse().read()
    assert body == b'{"outputs": NaN}'
    assert math.isnan(json.loads(body)["outputs"])


def test_rank_answers_the_best(rest):
    status, answer = rest.predict({"signature_name": "rank", "inputs": {"dense": [[0, 1]], "user": [3, 9, 5], "k": 2}})
    assert status == 200
    assert answer["outputs"]["top_index"] == [1, 2]
    assert len(answer["outputs"]["probability"]) == 3


def test_an_empty_batch_has_an_empty_answer(rest):
    status, answer = rest.predict({"signature_name": "predict", "inputs": {name: [] for name in predict_inputs(1)}})
    assert (status, answer["outputs"]["probability"]) == (200, [])


def test_classify_and_regress_take_examples(rest):
    examples = [{"user": 3, "dense": [1.0, 2.0]}, {"dense": [0.0, 0.0]}]
    body = {"signature_name": "classify", "context": {"user": 50}, "examples": examples}
    status, answer = rest.send("POST", "/v1/models/tiny:classify", body)
    assert status == 200
    assert [[label for label, _ in row] for row in answer["results"]] == [["no", "yes"]] * 2
    assert answer["results"][0][1][1] == pytest.approx(1 / (1 + math.exp(-3.03)), abs=1e-6)
    assert answer["results"][1][1][1] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-6)  # the context's user
    status, answer = rest.send("POST", "/v1/models/tiny:regress", {**body, "signature_name": "regress"})
    assert (status, answer) == (200, {"results": [pytest.approx(3.03), 0.5]})


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_other_signatures_are_not_for_classify_and_regress(rest, verb):
    status, answer = rest.send("POST", f"/v1/models/tiny:{verb}", {"examples": [{"user": 3}]})
    assert status == 400
    assert "signature 'serving_default' is not for" in answer["error"]
    assert "use Predict" in answer["error"]


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_versions_and_labels_are_in_the_path(rest, where):
    assert rest.predict({"signature_name": "slow", "inputs": [1]}, f"/v1/models/tiny{where}:predict")[0] == 200
    status, answer = rest.send("GET", f"/v1/models/tiny{where}")
    expected = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (status, answer) == (200, {"model_version_status": [expected]})
    status, answer = rest.send("GET", f"/v1/models/tiny{where}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "tiny", "version": "1", "signature_name": ""}
    user = answer["metadata"]["signature_def"]["signature_def"]["predict"]["inputs"]["user"]
    assert user["dtype"] == "DT_INT64"
    assert [dim["size"] for dim in user["tensor_shape"]["dim"]] == ["-1"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/models/other:predict", "model 'other' is not served here. Models: tiny."),
        ("/v1/models/tiny/versions/7:predict", "version 7 of model 'tiny' is not available. Available: 1."),
        ("/v1/models/tiny/labels/new:predict", "no version label 'new'. Its labels: stable."),
        ("/v2/models/tiny:predict", "there is nothing here. POST /v1/models/NAME"),
    ],
)
def test_what_is_not_there_is_404(rest, path, message):
    status, error = rest.predict({"inputs": [1]}, path)
    assert status == 404
    assert message in error


def _changed(**changes) -> dict:
    inputs = {name: value for name, value in {**predict_inputs(3), **changes}.items() if value is not None}
    return {"signature_name": "predict", "inputs": inputs}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (_changed(usr=[1]), "input 'usr' is unknown to signature 'predict'. Did you mean 'user'?"),
        (_changed(user=None), "missing inputs: user (int64 [?])"),
        (_changed(user=[1, "2", 3]), "input 'user', row 1: '2'; int64 [?] is expected"),
        (_changed(user=[1, 2, 0.5]), "input 'user', row 2: 0.5"),
        (_changed(user=[1, 2, 2**63]), "input 'user', row 2: 9223372036854775808"),
        (_changed(user=[1, 2, 100]), "feature 'user': an id is not below 100. Clip it."),  # said inside the graph
        (_changed(user=[[1], [2], [3]]), "input 'user': shape [3, 1] was given"),
        (_changed(user=[1, 2]), "input 'user' has 2 rows where 'dense' has 3"),
        (_changed(dense=[[1, 2, 3]] * 3), "input 'dense': shape [3, 3] was given; float32 [?, 2]"),
        (_changed(genres_row_lengths=[1, 2, 1]), "'genres_row_lengths' adds up to 4, but 'genres' holds 3"),
        (_changed(genres=[[1], [], [2]]), "Bags of different lengths are given one after another"),
        (
            {"signature_name": "slow", "inputs": [0] * (MAX_ROWS + 1)},
            f"{MAX_ROWS + 1} rows; a request may have {MAX_ROWS}",
        ),
        (
            {"signature_name": "nope", "inputs": []},
            "signature 'nope' is not in the model. It has: classify, echo, held, mean",
        ),
        ({"signature_name": 5, "inputs": []}, "'signature_name' is int"),
        ({"inputs": ["garbage"]}, "Could not parse example input"),
        ({"inputs": [1]}, "input 'examples', row 0: 1; string [?] is expected"),
        ({"signature_name": "predict", "inputs": [1]}, "'inputs' is no object of named inputs"),
        ({"signature_name": "predict", "instances": [1]}, "'instances' holds values and not objects"),
        ({"instances": []}, "at least one row"),
        ({"instances": [1], "inputs": [1]}, "Give either 'instances' (rows) or 'inputs' (columns)"),
        ({}, "Give either"),
        ({"inputs": [1], "input": 1}, "'input' is unknown in a body for predict"),
        ({"signature_name": "slow", "instances": [{"steps": 1}, {"step": 1}]}, "row 1: input 'step'"),
        ({"signature_name": "slow", "instances": [{"steps": 1}, 1]}, "row 1: a value where row 0 is an object"),
        (
            {"signature_name": "rank", "instances": [{"dense": [1, 1], "user": 1, "k": 1}]},
            "'k' is one value for the whole",
        ),
        ([], "A JSON object is expected"),
        (b"{", "The body is not JSON"),
        (b"\xff", "The body is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": [1], "inputs": [2]}', "the name 'inputs' is twice"),
        (MANY_NAMES, "the name 'k79999' is twice in an object"),
        (b'{"inputs": [' + b"1" * 5000 + b"]}", "The body is not JSON: Exceeds the limit"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_and_the_next_one_answered(rest, body, message):
    status, error = rest.predict(body)
    assert (status, message in error) == (400, True), error
    assert rest.predict({"signature_name": "slow", "inputs": [1]}) == (200, {"outputs": [1]})


def test_a_body_of_very_many_values_is_refused_before_it_is_parsed():
    for values in (
        b"[]," * (MAX_JSON_MEMORY // 120),
        b"1," * (MAX_JSON_MEMORY // 59),
        b"{}," * (MAX_JSON_MEMORY // 290),
    ):
        with pytest.raises(ServingError, match="JSON takes more than 60,000,000 bytes once it is parsed"):
            parse_body(b'{"inputs": [' + values + b"1]}")
    assert len(parse_body(b'{"inputs": [' + b"0," * 100_000 + b"1]}")["inputs"]) == 100_001


@pytest.mark.parametrize(("method", "path"), [("GET", PREDICT), ("POST", "/v1/models/tiny")])
def test_the_other_method_is_named(rest, method, path):
    status, answer = rest.send(method, path, {} if method == "POST" else None)
    assert status == 400
    assert "this path is for" in answer["error"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (b"1e400", "the number 1e400 is beyond float64"),
        (b"-1.5E+0309", "the number -1.5E+0309 is beyond float64"),
        (b"9" * 250 + b"e99", "beyond float64"),
        (b"9" * 400, "a number of more than 30 digits"),
        (b"1e39", "1e+39; float32 [?] is expected"),
    ],
)
def test_numbers_beyond_their_dtype(rest, number, said):
    status, answer = rest.send("POST", PREDICT, b'{"signature_name": "mean", "instances": [1.5, ' + number + b"]}")
    assert status == 400
    assert said in answer["error"]


def test_small_numbers_and_names_that_look_large_are_taken(rest):
    body = b'{"signature_name": "mean", "inputs": {"x": [1e-400, 3.0, 1e+002, -1E2]}}'
    assert rest.send("POST", PREDICT, body) == (200, {"outputs": 0.75})
    status, answer = rest.send("POST", PREDICT, b'{"signature_name": "1e400", "instances": [1.5]}')
    assert status == 400
    assert "signature '1e400' is not in the model" in answer["error"]


def test_health_and_metrics(rest, server):
    assert rest.send("GET", "/healthz") == (200, {"live": True})
    assert rest.send("GET", "/readyz") == (200, {"ready": True})
    rest.predict({"signature_name": "slow", "inputs": [1, 1]})
    rest.predict({"signature_name": "slow", "inputs": ["x"]})
    rest.predict({"signature_name": "made_up_by_a_client", "inputs": []})
    rest.connection.request("GET", "/monitoring/prometheus/metrics")
    response = rest.connection.getresponse()
    page = response.read().decode()
    assert response.getheader("Content-Type").startswith("text/plain")
    labels = 'interface="rest",method="Predict",model="tiny",signature="slow"'
    for line in (
        f'tfdlrm_serving_requests_total{{{labels},status="OK"}}',
        f'tfdlrm_serving_requests_total{{{labels},status="INVALID_ARGUMENT"}}',
        'tfdlrm_serving_request_seconds_bucket{interface="rest",le="0.1",method="Predict",model="tiny",signature="slow"}',
        'tfdlrm_serving_batch_rows_bucket{le="2.0",model="tiny",signature="slow"}',
        'tfdlrm_serving_version_state{model="tiny",state="AVAILABLE",version="1"} 1.0',
        "tfdlrm_serving_requests_in_flight 0.0",
    ):
        assert line in page
    assert "made_up_by_a_client" not in page  # a client cannot fill the memory with labels


def test_a_slow_request_does_not_hold_up_others(server, rest, gate):
    slow = Rest(server.rest_port)
    with ThreadPoolExecutor(1) as executor:
        held = executor.submit(slow.predict, {"signature_name": "held", "inputs": gate.inputs})
        wait_in_flight(server.rest_port, 1)
        assert rest.predict({"signature_name": "slow", "inputs": [1]})[0] == 200
        assert not held.done()
        gate.open()
        assert held.result() == (200, {"outputs": gate.inputs})
    slow.connection.close()


def test_bytes_that_an_op_quotes(rest):
    """TensorFlow's error holds the request's bytes, which are no UTF-8: it is lost on its way to Python."""
    status, error = rest.predict({"instances": [{"b64": base64.b64encode(b"\xc7" * 3000).decode()}]})
    assert status == 400
    assert error.startswith("Could not parse example input, value: '\\xc7\\xc7")
    assert len(error) == 2001
