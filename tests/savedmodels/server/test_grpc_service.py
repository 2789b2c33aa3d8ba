"""gRPC as TensorFlow Serving speaks it: its protos, TensorFlow's own functions on the client's side."""

from __future__ import annotations

import contextlib
import shutil
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from savedmodels.server.config import ModelConfig
from savedmodels.server.program import Server
from tests.savedmodels.server.conftest import MAX_MESSAGE_BYTES, options, wait_until
from tests.savedmodels.server.tiny_models import predict_inputs, predict_logits

DTYPES = {
    "gate": tf.string,
    "dense": tf.float32,
    "genres_weights": tf.float32,
    "k": tf.int32,
    "x": tf.float32,
    "text": tf.string,
}


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def request(signature: str, **inputs) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "tiny"
    made.model_spec.signature_name = signature
    for name, value in inputs.items():
        proto = value if isinstance(value, tf.make_tensor_proto(0).__class__) else None
        made.inputs[name].CopyFrom(proto or tf.make_tensor_proto(value, DTYPES.get(name, tf.int64)))
    return made


def refused(call, *arguments, **options) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code().name, caught.value.details()


def test_predict(stub):
    inputs = predict_inputs(4)
    response = stub.Predict(request("predict", **inputs))
    logit = tf.make_ndarray(response.outputs["logit"])
    assert logit.shape == (4, 1)
    np.testing.assert_allclose(logit[:, 0], predict_logits(inputs), atol=1e-5)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 1, "predict")


def test_the_default_signature_takes_examples(stub):
    example = tf.train.Example()
    example.features.feature["user"].int64_list.value.append(50)
    example.features.feature["dense"].float_list.value.extend([1.0, 2.0])
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "tiny"
    made.inputs["examples"].CopyFrom(tf.make_tensor_proto([example.SerializeToString()]))
    response = stub.Predict(made)
    assert tf.make_ndarray(response.outputs["logit"]).tolist() == [[3.5]]
    assert response.model_spec.signature_name == "serving_default"


def test_outputs_can_be_chosen(stub):
    made = request("predict", **predict_inputs(2))
    made.output_filter.append("version")
    assert list(stub.Predict(made).outputs) == ["version"]
    made.output_filter.append("score")
    assert refused(stub.Predict, made) == (
        "INVALID_ARGUMENT",
        "output 'score' is unknown to signature 'predict'. It gives: logit, probability, version.",
    )


def test_strings_are_bytes(stub):
    response = stub.Predict(request("echo", text=[b"\xff\x00", b""]))
    assert tf.make_ndarray(response.outputs["text"]).tolist() == [b"\xff\x00", b""]


def test_classify_and_regress(stub):
    made = classification_pb2.ClassificationRequest()
    made.model_spec.name, made.model_spec.signature_name = "tiny", "classify"
    example = made.input.example_list_with_context.examples.add()
    example.features.feature["dense"].float_list.value.extend([1.0, -1.5])
    made.input.example_list_with_context.context.features.feature["user"].int64_list.value.append(50)
    classes = stub.Classify(made).result.classifications[0].classes
    assert [(each.label, each.score) for each in classes] == [("no", 0.5), ("yes", 0.5)]
    regress = regression_pb2.RegressionRequest(model_spec=made.model_spec, input=made.input)
    regress.model_spec.signature_name = "regress"
    assert [each.value for each in stub.Regress(regress).result.regressions] == [0.0]
    regress.model_spec.signature_name = "predict"
    assert refused(stub.Regress, regress)[0] == "INVALID_ARGUMENT"
    regress.model_spec.signature_name = "regress"
    regress.input.Clear()
    assert refused(stub.Regress, regress) == ("INVALID_ARGUMENT", "The request's input has no examples.")


def test_status_and_metadata(stub, models):
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "tiny"
    (entry,) = models.GetModelStatus(status).model_version_status
    assert (entry.version, entry.state, entry.status.error_code) == (1, entry.AVAILABLE, 0)
    made = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    made.model_spec.name = "tiny"
    response = stub.GetModelMetadata(made)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) >= {"predict", "rank", "serving_default"}
    assert response.model_spec.version.value == 1
    made.metadata_field.append("other")
    assert refused(stub.GetModelMetadata, made)[0] == "INVALID_ARGUMENT"


def multi_inference(*tasks: tuple[str, str], model: str = "tiny") -> inference_pb2.MultiInferenceRequest:
    """(method, signature) for two examples."""
    made = inference_pb2.MultiInferenceRequest()
    for method, signature in tasks:
        task = made.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    for user in (3, 4):
        features = made.input.example_list.examples.add().features.feature
        features["user"].int64_list.value.append(user)
        features["dense"].float_list.value.extend([0.5, 0.25])
    return made


def test_multi_inference(stub):
    made = multi_inference(("regress", "regress"), ("classify", "classify"))
    response = stub.MultiInference(made)
    assert [result.model_spec.signature_name for result in response.results] == ["regress", "classify"]
    assert {(result.model_spec.name, result.model_spec.version.value) for result in response.results} == {("tiny", 1)}
    regress, classify = response.results
    alone = regression_pb2.RegressionRequest(input=made.input)
    alone.model_spec.name, alone.model_spec.signature_name = "tiny", "regress"
    assert regress.regression_result == stub.Regress(alone).result
    alone = classification_pb2.ClassificationRequest(input=made.input)
    alone.model_spec.name, alone.model_spec.signature_name = "tiny", "classify"
    assert classify.classification_result == stub.Classify(alone).result
    assert len(regress.regression_result.regressions) == 2


@pytest.mark.parametrize(
    ("made", "code", "message"),
    [
        (multi_inference(), "INVALID_ARGUMENT", "no tasks"),
        (multi_inference(("predict", "predict")), "UNIMPLEMENTED", "method_name: 'tensorflow/serving/predict'"),
        (multi_inference(("regress", "regress"), ("regress", "regress")), "INVALID_ARGUMENT", "signature: 'regress'"),
        (multi_inference(("regress", "classify")), "INVALID_ARGUMENT", "signature 'classify' is not for Regress"),
        (multi_inference(("regress", "regress"), model="no"), "NOT_FOUND", "model 'no' is not served here"),
        (multi_inference(("regress", "regress"), model=""), "INVALID_ARGUMENT", "model_spec.name is empty"),
    ],
)
def test_multi_inferences_that_are_refused(stub, made, code, message):
    told = refused(stub.MultiInference, made)
    assert told[0] == code
    assert message in told[1]


def test_multi_inference_is_of_one_model(stub):
    made = multi_inference(("regress", "regress"), ("classify", "classify"))
    made.tasks[1].model_spec.name = "other"
    assert "must access the same model name; these do: 'other', 'tiny'" in refused(stub.MultiInference, made)[1]


def test_health(channel, server):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        wait_until(
            lambda service=service: (
                stub.Check(health_pb2.HealthCheckRequest(service=service)).status
                == health_pb2.HealthCheckResponse.SERVING
            )
        )
    assert refused(stub.Check, health_pb2.HealthCheckRequest(service="other"))[0] == "NOT_FOUND"


def test_health_follows_the_models(versions, tmp_path):
    (tmp_path / "model").mkdir()
    server = Server([ModelConfig(name="tiny", base_path=tmp_path / "model")], options())
    with server, grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        shutil.copytree(versions / "1", tmp_path / "model" / "1")
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        server.stop_listening(0.0)
        with contextlib.suppress(grpc.RpcError):  # the stream may be cut off before it tells
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_reflection_tells_the_services(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tensorflow.serving.PredictionService"),
    ]
    listed, file = stub.ServerReflectionInfo(iter(asked))
    assert {service.name for service in listed.list_services_response.service} == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    described = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in file.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for each in described for service in each.service for method in service.method}
    assert {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"} <= methods


@pytest.mark.parametrize(
    ("made", "code", "message"),
    [
        (request("predict", **predict_inputs(2), usr=[1]), "INVALID_ARGUMENT", "Did you mean 'user'?"),
        (request("slow"), "INVALID_ARGUMENT", "missing inputs: steps (int64 [?])"),
        (request("slow", steps=tf.make_tensor_proto([1])), "INVALID_ARGUMENT", "'steps': int32 was given; int64"),
        (request("slow", steps=[[1]]), "INVALID_ARGUMENT", "'steps': shape [1, 1] was given"),
        (request("slow", steps=[0] * 1001), "INVALID_ARGUMENT", "1001 rows; a request may have 1000"),
        (request("nope"), "FAILED_PRECONDITION", "signature 'nope' is not in the model. It has: classify"),
        (
            request("predict", **{**predict_inputs(1), "user": [100]}),
            "INVALID_ARGUMENT",
            "an id is not below 100. Clip it.",
        ),
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "model_spec.name is empty"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(stub, made, code, message):
    answered, details = refused(stub.Predict, made)
    assert (answered, message in details) == (code, True), details
    assert "node" not in details
    assert "steps" in stub.Predict(request("slow", steps=[1])).outputs  # the next one is answered


def test_a_version_that_is_not_there(stub):
    made = request("slow", steps=[1])
    made.model_spec.version.value = 9
    assert refused(stub.Predict, made) == (
        "NOT_FOUND",
        "version 9 of model 'tiny' is not available. Available: 1.",
    )
    made.model_spec.version_label = "stable"
    assert stub.Predict(made).model_spec.version.value == 1


def test_garbage_is_an_invalid_argument(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refused(call, b"\xff\xff\xff") == ("INVALID_ARGUMENT", "3 bytes that are no PredictRequest.")


def test_a_message_too_large_is_refused_and_the_next_one_answered(stub):
    large = request("echo", text=[b"x" * (MAX_MESSAGE_BYTES + 1)])
    assert refused(stub.Predict, large)[0] == "RESOURCE_EXHAUSTED"
    stub.Predict(request("slow", steps=[1]))


def test_a_shape_that_a_few_bytes_claim_is_not_made(stub):
    made = request("mean", x=[1.0])
    made.inputs["x"].tensor_shape.dim[0].size = 2**40
    code, details = refused(stub.Predict, made)
    assert code == "INVALID_ARGUMENT"
    assert "takes more than" in details


def test_the_deadline_of_a_request_ends_it(stub, gate):
    assert refused(stub.Predict, request("held", gate=gate.inputs), timeout=0.3)[0] == "DEADLINE_EXCEEDED"
    stub.Predict(request("slow", steps=[1]))


def test_an_empty_batch_has_an_empty_answer(stub):
    response = stub.Predict(request("slow", steps=[]))
    assert tf.make_ndarray(response.outputs["steps"]).shape == (0,)
    response = stub.Predict(request("echo", text=np.zeros([0], object)))
    assert tf.make_ndarray(response.outputs["text"]).shape == (0,)


def test_many_at_once(stub):
    answers = []

    def ask(number: int) -> None:
        response = stub.Predict(request("slow", steps=[number]))
        answers.append((number, int(tf.make_ndarray(response.outputs["steps"])[0])))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(number, number) for number in range(20)]


def test_a_config_that_is_none_changes_nothing(stub, models):
    made = model_management_pb2.ReloadConfigRequest()
    assert refused(models.HandleReloadConfigRequest, made)[0] == "INVALID_ARGUMENT"
    made.config.model_config_list.config.add(name="tiny", base_path="/nonexistent")
    assert refused(models.HandleReloadConfigRequest, made) == (
        "INVALID_ARGUMENT",
        "model 'tiny': /nonexistent is no folder.",
    )
    stub.Predict(request("slow", steps=[1]))
