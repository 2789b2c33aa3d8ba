"""Warm-up requests are replayed before the first real one; what does not fit keeps a version from being served."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from savedmodels.server.loading import LoadedModel
from savedmodels.server.warmup import MAX_RECORDS, WARMUP_FILE, warm_up
from tests.savedmodels.server.tiny_models import predict_inputs


def write_warmup(folder: Path, *requests: dict) -> None:
    """A version's warm-up requests for the signature `predict`."""
    path = folder / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for inputs in requests:
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = "predict"
            for name, value in inputs.items():
                dtype = tf.float32 if name in ("dense", "genres_weights") else tf.int64
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
            writer.write(log.SerializeToString())


def test_warm_up_requests_are_replayed_before_the_first_real_one(serve, publish, monkeypatch):
    folder = publish(1)
    write_warmup(folder, predict_inputs(2), predict_inputs(5))
    asked, plain = [], LoadedModel.run
    monkeypatch.setattr(
        LoadedModel, "run", lambda self, name, inputs: asked.append(len(inputs["user"])) or plain(self, name, inputs)
    )
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    assert asked == [2, 5]


def test_warm_up_requests_of_other_forms_and_too_many_of_them(serve, publish, monkeypatch):
    folder = publish(1)
    asked, plain = [], LoadedModel.run
    monkeypatch.setattr(LoadedModel, "run", lambda self, name, inputs: asked.append(name) or plain(self, name, inputs))
    log = prediction_log_pb2.PredictionLog()
    for held, signature in (("classify_log", "classify"), ("regress_log", "regress")):
        request = getattr(log, held).request
        request.model_spec.signature_name = signature
        example = request.input.example_list.examples.add()
        example.features.feature["user"].int64_list.value.append(7)
        example.features.feature["dense"].float_list.value.extend([0.5, 0.5])
        path = folder / WARMUP_FILE
        path.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(log.SerializeToString())
        asked.clear()
        assert warm_up(LoadedModel(folder), folder) == 1
        assert asked == [signature]
    model = LoadedModel(folder)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"no log")
    with pytest.raises(ValueError, match="Failed to parse warmup record 0 from "):
        warm_up(model, folder)
    for count in (MAX_RECORDS, MAX_RECORDS + 1):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(count):
                writer.write(log.SerializeToString())
        monkeypatch.setattr(LoadedModel, "run", lambda self, name, inputs: {})
        if count == MAX_RECORDS:
            assert warm_up(model, folder) == count
        else:
            with pytest.raises(ValueError, match=r"Number of warmup records exceeds the maximum \(1000\)"):
                warm_up(model, folder)
    served = serve()
    served.wait(lambda: served.states() == {1: "END"})


def test_a_version_that_fails_on_its_warm_up_is_not_served(serve, publish):
    publish(1)
    served = serve()
    served.wait(lambda: served.states() == {1: "AVAILABLE"})
    folder = publish(2, folder_name=".2.warm")
    write_warmup(folder, {**predict_inputs(1), "user": [100]})
    folder.rename(folder.parent / "2")
    served.wait(lambda: served.states() == {1: "AVAILABLE", 2: "END"})
    assert "an id is not below 100" in served.store.model("tiny").statuses()[0].error_message
