"""One row has one score: by Transform and the live model, by the export in a bare process, and by our server."""

from __future__ import annotations

import csv
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from savedmodels.client import GrpcClient
from savedmodels.server.config import ModelConfig
from savedmodels.server.options import ServerOptions
from savedmodels.server.program import Server
from savedmodels.verify import verify
from tests.pipelines.generated_rows import SPEC, write_rows
from tests.pipelines.pipeline_run import Run, pipeline_run
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run_evaluation import evaluate_run

TOLERANCE = 1e-6
NEW_ROWS = 1200
READY_SECONDS = 60.0


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return pipeline_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def examples(run, tmp_path_factory) -> np.ndarray:
    """Raw examples of rows that no component has seen, in the types of the pipeline's examples."""
    folder = write_rows(tmp_path_factory.mktemp("new"), NEW_ROWS, files=1, seed=7)
    types = run.transform().raw_feature_spec()
    found = []
    with (folder / "rows-0.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            features = {}
            for name, cell in row.items():
                if name in SPEC.labels or cell == "":
                    continue
                dtype = types[name].dtype
                if dtype == tf.string:
                    features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[cell.encode()]))
                elif dtype == tf.int64:
                    features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(cell)]))
                else:
                    features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[float(cell)]))
            found.append(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return np.array(found, object)


@pytest.fixture(scope="module")
def live(run, examples) -> np.ndarray:
    """Logits of Transform and the live model."""
    model, _, _ = ModelDir(run.model_dir).load_model()
    features = run.encoder().encode_examples(tf.constant(examples), ())
    return model(features, training=False).numpy()


BARE = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.startswith(("tfx", "tensorflow_transform", "tfdlrm", "savedmodels", "pipelines")):
                raise ImportError(name)

    sys.meta_path.insert(0, Refuse())
    import numpy as np
    import tensorflow as tf

    examples = np.load(sys.argv[2])["examples"]
    examples = [example.tobytes()[:size] for example, size in zip(examples, np.load(sys.argv[2])["sizes"])]
    serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
    np.save(sys.argv[3], serve(examples=tf.constant(examples))["logit"].numpy())
"""


def test_the_export_scores_raw_rows_as_the_live_model_without_tfx(run, examples, live, tmp_path) -> None:
    sizes = np.array([len(each) for each in examples])
    padded = np.zeros((len(examples), sizes.max()), np.uint8)
    for row, each in zip(padded, examples, strict=True):
        row[: len(each)] = np.frombuffer(each, np.uint8)
    np.savez(tmp_path / "examples.npz", examples=padded, sizes=sizes)
    command = [sys.executable, "-c", textwrap.dedent(BARE)]
    version = run.version
    files = [str(version), str(tmp_path / "examples.npz"), str(tmp_path / "logits.npy")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path, check=False, env={})
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), live, rtol=0, atol=TOLERANCE)
    assert np.ptp(live) > 0.5


def test_our_server_scores_them_alike(run, examples, live) -> None:
    configs = [ModelConfig(name="clicks", base_path=run.pushed)]
    with Server(configs, ServerOptions(grpc_port=0, rest_port=0)) as server:
        assert server.wait_until_ready(READY_SECONDS)
        with GrpcClient(f"127.0.0.1:{server.grpc_port}", "clicks") as client:
            found = client.predict({"examples": examples})["logit"]
    np.testing.assert_allclose(found, live, rtol=0, atol=TOLERANCE)


def test_the_export_is_verified(run) -> None:
    """Its columnar signatures answer as rows do that our own readers have encoded, and the live model has scored."""
    report = verify(run.pushed)
    assert report.passed, report.problems


def test_the_run_of_the_trainer_is_a_model_folder(run) -> None:
    best = ModelDir(run.model_dir).read_best()
    assert best is not None
    evaluation = evaluate_run(run.model_dir, part="validation")
    assert best["value"] == pytest.approx(evaluation.metrics["auc"], abs=1e-9)
    assert list((run.model_dir / "logs").rglob("events.*"))
    assert evaluation.metrics["auc"] > 0.55
