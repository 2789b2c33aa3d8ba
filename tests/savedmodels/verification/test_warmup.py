"""Warm-up requests are what TensorFlow Serving's own classes read, and what they write is read."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2

from savedmodels.recorded import read_requests
from savedmodels.warmup import (
    MAX_RECORDS,
    WARMUP_FILE,
    WarmupRequest,
    decode_request,
    encode_request,
    read_warmup,
    write_warmup,
)


def _records(folder):
    return list(tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator())


def test_tensorflow_servings_own_classes_read_them(pristine):
    recorded = [(name, request) for name, several in read_requests(pristine).items() for request in several]
    records = _records(pristine)
    assert len(records) == len(recorded) == 4
    for record, (signature, request) in zip(records, recorded, strict=True):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        given = log.predict_log.request
        assert (given.model_spec.name, given.model_spec.signature_name) == ("tiny", signature)
        # nothing that the classes do not know: what they write again is as long
        assert len(log.SerializeToString()) == len(record)
        assert set(given.inputs) == set(request.inputs)
        for name, array in request.inputs.items():
            read = tf.make_ndarray(given.inputs[name])
            assert read.dtype == array.dtype
            np.testing.assert_array_equal(read, array)


def test_what_those_classes_write_is_read():
    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.sampling_config.sampling_rate = 0.5  # fields of other kinds on the way
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "clicks", "predict"
    request.model_spec.version.value = 7
    request.output_filter.append("probability")
    request.inputs["ids"].CopyFrom(tf.make_tensor_proto(np.int64([[2**62]])))
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([b"\0"]))
    read = decode_request(log.SerializeToString())
    assert (read.model_name, read.signature) == ("clicks", "predict")
    assert read.inputs["ids"].tolist() == [[2**62]]
    assert read.inputs["ids"].dtype == np.int64
    assert read.inputs["text"].tolist() == [b"\0"]


def test_a_request_without_a_signature_is_of_the_default_one():
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "clicks"
    assert decode_request(log.SerializeToString()).signature == "serving_default"


def test_another_kind_of_request_is_refused():
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.name = "clicks"
    with pytest.raises(ValueError, match="it is no predict request"):
        decode_request(log.SerializeToString())


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_or_cut_record_is_read_or_refused_and_nothing_else(at, byte):
    record = encode_request(WarmupRequest("m", "predict", {"ids": np.arange(3), "q": np.array([b"ab"], object)}))
    at %= len(record)
    for broken in (record[:at], record[:at] + bytes([byte]) + record[at + 1 :]):
        with contextlib.suppress(ValueError):  # UnicodeDecodeError of a name is one, too
            decode_request(broken)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32, object])
def test_every_form_of_input_survives(shape, dtype):
    array = np.full(shape, b"x" if dtype is object else 3, dtype)
    read = decode_request(encode_request(WarmupRequest("m", "s", {"x": array}))).inputs["x"]
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert read.tolist() == array.tolist()


def test_the_limit_of_tensorflow_serving_is_kept(tmp_path):
    pair = ({"x": np.int64([1])}, {})
    for number in (0, MAX_RECORDS + 1):
        with pytest.raises(ValueError, match=f"model 'm': {number} warm-up requests; TensorFlow Serving takes 1 to"):
            write_warmup(tmp_path, "m", {"predict": [pair] * number})
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    write_warmup(tmp_path, "m", {"predict": [pair] * 2})
    assert len(read_warmup(tmp_path)) == 2
