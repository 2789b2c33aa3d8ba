"""Only a model that answers rightly is pushed."""

from __future__ import annotations

import json
import shutil

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tfx_bsl.public.beam import RunInference
from tfx_bsl.public.proto import model_spec_pb2

from pipelines.pipeline import publish
from pipelines.run_local import run_local
from pipelines.tfx_extra import tfx
from pipelines.verifier import BLESSED, NOT_BLESSED, REPORT
from savedmodels.manifest import MANIFEST_FILE
from tests.pipelines.pipeline_run import NAME, Run, pipeline_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


def test_what_was_verified_is_pushed_as_a_numbered_version(run) -> None:
    folder = run.artifact("Verifier/blessing/*")
    assert (folder / BLESSED).is_file()
    report = json.loads((folder / REPORT).read_text())
    assert report["problems"] == []
    assert report["checks"]["fresh process"] == "passed"
    version = run.version
    assert int(version.name) > 0
    manifest = json.loads((version / MANIFEST_FILE).read_text())
    assert manifest["version"] is None
    assert manifest["model_name"] == NAME
    assert (version / "saved_model.pb").read_bytes() == (run.export / "saved_model.pb").read_bytes()


def test_beams_run_inference_answers_as_the_model_does(run, tmp_path) -> None:
    """In batches, as other pipelines score rows."""
    examples = [
        record
        for file in sorted(run.artifact("CsvExampleGen/examples/*").glob("Split-eval/*.gz"))
        for record in tf.data.TFRecordDataset(str(file), "GZIP").take(20).as_numpy_iterator()
    ]
    spec = model_spec_pb2.InferenceSpecType(saved_model_spec=model_spec_pb2.SavedModelSpec(model_path=str(run.version)))
    out = tmp_path / "logs"
    with beam.Pipeline() as pipeline:
        logs = pipeline | beam.Create([tf.train.Example.FromString(each) for each in examples]) | RunInference(spec)
        logs | beam.Map(lambda log: log.SerializeToString()) | beam.io.WriteToTFRecord(str(out))
    answered = {}
    for file in tmp_path.glob("logs*"):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
            (example,) = tf.make_ndarray(log.request.inputs["examples"])
            answered[example] = tf.make_ndarray(log.response.outputs["probability"])
    assert len(answered) > 10
    serve = tf.saved_model.load(str(run.version)).signatures["serving_default"]
    expected = serve(tf.constant(list(answered)))["probability"].numpy()
    np.testing.assert_allclose(np.concatenate(list(answered.values())).ravel(), expected.ravel(), rtol=1e-6)


def test_a_model_that_was_changed_is_not_pushed(run, tmp_path) -> None:
    spoiled = tmp_path / "model" / "Format-Serving"
    shutil.copytree(run.export, spoiled)
    data = max(spoiled.glob("variables/variables.data-*"), key=lambda file: file.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    importer = tfx.dsl.Importer(str(spoiled.parent), tfx.types.standard_artifacts.Model).with_id("Model")
    blessing = tmp_path / "blessing"
    blessing.mkdir()
    (blessing / "BLESSED").touch()
    blessed = tfx.dsl.Importer(
        str(blessing), tfx.types.standard_artifacts.ModelBlessing, custom_properties={"blessed": 1}
    ).with_id("Blessing")
    root = tmp_path / "root"
    store = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    published = publish(importer.outputs["result"], blessed.outputs["result"], tmp_path / "serving")
    components = [importer, blessed, *published]
    result = run_local(tfx.dsl.Pipeline("spoiled", str(root), components=components, metadata_connection_config=store))
    assert result.pushed is None
    assert any("was changed" in problem for problem in result.problems)
    (folder,) = root.glob("Verifier/blessing/*")
    assert (folder / NOT_BLESSED).is_file()
    assert not (folder / BLESSED).exists()
    assert any("was changed" in problem for problem in json.loads((folder / REPORT).read_text())["problems"])
    assert not (tmp_path / "serving").exists()
