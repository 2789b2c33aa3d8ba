"""The files for TensorFlow Serving are what its binary reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

import savedmodels
from savedmodels.server.config import read_config

DEPLOY = Path(savedmodels.__file__).parent / "deploy"
TYPES = descriptor_pb2.FieldDescriptorProto

# The package tensorflow-serving-api does not hold these two messages. Transcribed from TensorFlow Serving's
# config/monitoring_config.proto and servables/tensorflow/session_bundle_config.proto: name, number, type.
MONITORING = {
    "PrometheusConfig": [("enable", 1, TYPES.TYPE_BOOL), ("path", 2, TYPES.TYPE_STRING)],
    "MonitoringConfig": [("prometheus_config", 1, ".tfdlrm_test.PrometheusConfig")],
}
INT64, BOOL, STRING = (f".google.protobuf.{name}Value" for name in ("Int64", "Bool", "String"))
BATCHING = {
    "BatchingParameters": [
        ("max_batch_size", 1, INT64),
        ("batch_timeout_micros", 2, INT64),
        ("max_enqueued_batches", 3, INT64),
        ("num_batch_threads", 4, INT64),
        ("thread_pool_name", 5, STRING),
        ("pad_variable_length_inputs", 7, TYPES.TYPE_BOOL),
        ("enable_large_batch_splitting", 8, BOOL),
        ("max_execution_batch_size", 9, INT64),
    ]
}


def message(messages: dict, name: str):
    """An empty message of a proto file that is written out here."""
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package="tfdlrm_test", syntax="proto3", dependency=[wrappers.name]
    )
    for message_name, fields in messages.items():
        made = file.message_type.add(name=message_name)
        for field, number, kind in fields:
            is_message = isinstance(kind, str)
            made.field.add(
                name=field,
                number=number,
                label=TYPES.LABEL_OPTIONAL,
                type=TYPES.TYPE_MESSAGE if is_message else kind,
                type_name=kind if is_message else None,
            )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfdlrm_test.{name}"))()


def test_models_are_tensorflow_servings():
    (config,) = read_config(DEPLOY / "models.config")  # parsed as its ModelServerConfig
    assert (config.name, config.num_latest, config.labels) == ("clicks", None, {"stable": 1, "canary": 2})
    # a version that a label names is not unloaded because others come
    assert set(config.labels.values()) <= config.wanted(range(1, 100))
    assert str(config.base_path) == "/models/clicks"


def test_monitoring_is_on_the_path_of_both_servers():
    from savedmodels.server.rest_service import METRICS_PATH

    config = message(MONITORING, "MonitoringConfig")
    text_format.Parse((DEPLOY / "monitoring.config").read_text(), config)
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == METRICS_PATH


def test_batching_parameters():
    config = message(BATCHING, "BatchingParameters")
    text_format.Parse((DEPLOY / "batching.config").read_text(), config)
    assert config.max_batch_size.value == config.max_execution_batch_size.value == 1024
    assert config.enable_large_batch_splitting.value
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch_rows { value: 1 }", config)


def test_compose_names_files_that_are_there():
    (service,) = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())["services"].values()
    assert service["image"].startswith("tensorflow/serving:${TF_SERVING_TAG:-")
    mounted = dict(volume.removesuffix(":ro").rsplit(":", 1) for volume in service["volumes"])
    files = {inside: DEPLOY / outside for outside, inside in mounted.items() if outside.startswith("./")}
    assert all(path.is_file() for path in files.values())
    used = [flag.split("=")[1] for flag in service["command"] if "/config/" in flag]
    assert set(used) <= set(files)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
