"""Any SavedModel is served: TensorFlow's own numbers over REST and gRPC, or a refusal that names the dtype."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from savedmodels.client import GrpcClient, InvalidRequestError, RestClient
from savedmodels.server.config import ModelConfig
from savedmodels.server.folders import missing_parts
from savedmodels.server.loading import LoadedModel
from savedmodels.server.program import Server
from tests.savedmodels.server.conftest import READY_SECONDS, Rest, options
from tests.savedmodels.server.foreign_models import (
    HalfPlusThree,
    keras_inputs,
    keras_models,
    save_frozen,
    save_half_plus_two,
    save_outputs,
    save_recommender_index,
)

KERAS = ("sequential", "functional", "subclassed")


@pytest.fixture(scope="module")
def models() -> dict[str, keras.Model]:
    return keras_models()


@pytest.fixture(scope="module")
def served(models: dict[str, keras.Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("foreign")
    for name, model in models.items():
        model.export(str(base / name / "1"), verbose=False)
    save_half_plus_two(base / "half_plus_two" / "1", with_resource=False)
    save_half_plus_two(base / "half_plus_two_resource" / "1", with_resource=True)
    save_half_plus_two(base / "half_plus_two_text" / "1", with_resource=False, as_text=True)
    module = HalfPlusThree()
    signatures = {"serving_default": module.predict, "regress": module.regress}
    tf.saved_model.save(module, str(base / "half_plus_three" / "1"), signatures=signatures)
    save_frozen(base / "frozen" / "1")
    save_outputs(base / "outputs" / "1")
    save_recommender_index(base / "index" / "1")
    configs = [ModelConfig(name=folder.name, base_path=folder) for folder in sorted(base.iterdir()) if folder.is_dir()]
    with Server(configs, options()) as server:
        assert server.wait_until_ready(READY_SECONDS), {n: m.statuses() for n, m in server.store.models.items()}
        yield server


def ask(served: Server, model: str, body: Any, verb: str = "predict") -> tuple[int, Any]:
    rest = Rest(served.rest_port)
    answer = rest.predict(body, f"/v1/models/{model}:{verb}")
    rest.connection.close()
    return answer


@pytest.mark.parametrize("kind", [GrpcClient, RestClient])
@pytest.mark.parametrize("name", KERAS)
def test_what_keras_exports(served: Server, models: dict[str, keras.Model], name: str, kind: Any) -> None:
    inputs = keras_inputs(name)
    port = served.grpc_port if kind is GrpcClient else served.rest_port
    given = {key: tf.constant(value) for key, value in inputs.items()}
    expected = models[name](given["x"] if name == "sequential" else given)
    with kind(f"127.0.0.1:{port}", name) as client:
        names = list(client.signature("serving_default").inputs)
        # Keras names them by their place where the model does not name them
        answer = client.predict(inputs if name == "functional" else dict(zip(names, inputs.values(), strict=True)))
    expected = expected if isinstance(expected, dict) else {next(iter(answer)): expected}
    assert set(answer) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(answer[key], value.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_resource", "half_plus_two_text"])
def test_the_quick_start_of_tensorflow_serving(served: Server, model: str) -> None:
    assert ask(served, model, {"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert ask(served, model, {"instances": [[1.0], [2.0]]}) == (200, {"predictions": [[2.5], [3.0]]})
    examples = [{"x": 1.0}, {"x": 2.0}]
    for signature, results in (("regress_x_to_y", [2.5, 3.0]), ("regress_x_to_y2", [3.5, 4.0])):
        body = {"signature_name": signature, "examples": examples}
        assert ask(served, model, body, "regress") == (200, {"results": results})
    body = {"signature_name": "classify_x_to_y", "examples": examples}
    assert ask(served, model, body, "classify") == (200, {"results": [[["", 2.5]], [["", 3.0]]]})
    # of the asset's table
    body = {"signature_name": "word", "instances": [[1.0], [9.0]]}
    assert ask(served, model, body) == (200, {"predictions": [["low"], ["high"]]})


def test_half_plus_three(served: Server) -> None:
    assert ask(served, "half_plus_three", {"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [3.5, 4.0, 5.5]})
    body = {"signature_name": "regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert ask(served, "half_plus_three", body, "regress") == (200, {"results": [3.5, 4.0]})


def test_a_graph_without_variables(served: Server) -> None:
    assert ask(served, "frozen", {"instances": [1.0, 4.0]}) == (200, {"predictions": [2.0, 8.0]})


def test_an_index_of_recommenders(served: Server) -> None:
    with GrpcClient(f"127.0.0.1:{served.grpc_port}", "index") as client:
        [name] = client.signature("serving_default").inputs
        answer = client.predict({name: [[1.0, 0.0], [0.0, 3.0]]})
    found = {array.dtype.kind: array.tolist() for array in answer.values()}
    assert found["O"] == [[b"c", b"a"], [b"c", b"b"]]
    assert found["f"] == [[2.0, 1.0], [6.0, 3.0]]


def test_scalar_strings(served: Server) -> None:
    status, answer = ask(served, "outputs", {"signature_name": "named", "inputs": {"x": [1.0]}})
    assert (status, answer) == (200, {"outputs": {"y": [2.0], "model_name": "clicks-7", "zero_bytes": {"b64": "YQA="}}})
    with GrpcClient(f"127.0.0.1:{served.grpc_port}", "outputs") as client:
        answer = client.predict({"x": [1.0]}, signature="named")
    assert (answer["model_name"].item(), answer["zero_bytes"].item()) == (b"clicks-7", b"a\0")


def test_bfloat16_over_grpc_and_refused_over_rest(served: Server) -> None:
    with GrpcClient(f"127.0.0.1:{served.grpc_port}", "outputs") as client:
        answer = client.predict({"x": [1.0, 1.5]}, signature="brain")["y"]
    assert answer.dtype.name == "bfloat16"
    assert answer.tolist() == [2.0, 3.0]
    status, error = ask(served, "outputs", {"signature_name": "brain", "instances": [1.0]})
    assert status == 400
    assert "signature 'brain': input 'x' is bfloat16, which has no form in JSON" in error


@pytest.mark.parametrize(("signature", "what"), [("ragged", "a RaggedTensor"), ("complex", "DT_COMPLEX64")])
def test_what_has_no_form_is_refused_by_name(served: Server, signature: str, what: str) -> None:
    status, error = ask(served, "outputs", {"signature_name": signature, "instances": [1.0]})
    assert status == 400
    assert f"signature '{signature}': tensor '" in error
    assert f"is {what}, which has no form in a request" in error
    for kind, port in ((GrpcClient, served.grpc_port), (RestClient, served.rest_port)):
        with kind(f"127.0.0.1:{port}", "outputs") as client, pytest.raises(InvalidRequestError, match="has no form"):
            client.predict({"x": [1.0]}, signature=signature)


def test_the_graph_decides_about_a_left_out_dimension(served: Server) -> None:
    body = {"signature_name": "multiplied", "instances": [1.0, 2.0]}
    status, error = ask(served, "outputs", body)
    assert status == 400
    assert "input 'x': shape [2] was given; float32 [?, 1] is expected." in error
    assert error.index("is expected") > 40  # behind what the op says
    assert ask(served, "outputs", {**body, "instances": [[1.0], [2.0]]}) == (200, {"predictions": [[3.0], [6.0]]})
    # two columns are no left-out dimension
    status, error = ask(served, "half_plus_three", {"instances": [[1.0, 2.0]]})
    assert (status, error) == (400, "input 'x': shape [1, 2] was given; float32 [?, 1] is expected.")


def test_files_of_variables_are_waited_for_where_the_graph_has_some(tmp_path: Path) -> None:
    save_half_plus_two(tmp_path / "1", with_resource=True)
    assert missing_parts(tmp_path / "1") == []
    (tmp_path / "1" / "variables" / "variables.index").unlink()
    assert missing_parts(tmp_path / "1") == ["variables/variables.index"]
    graph = tmp_path / "1" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:100])  # half written
    assert missing_parts(tmp_path / "1") == ["variables/variables.index"]
    save_frozen(tmp_path / "2")
    assert missing_parts(tmp_path / "2") == []


def test_the_tags_are_named_where_none_is_for_serving(tmp_path: Path) -> None:
    save_frozen(tmp_path / "1")
    graph = tmp_path / "1" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"serve", b"train"))
    with pytest.raises(ValueError, match=r"no graph with the one tag 'serve'.*The tags of its graphs: train"):
        LoadedModel(tmp_path / "1")
