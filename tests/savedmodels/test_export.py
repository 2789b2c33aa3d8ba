"""An export gives the live model's numbers, and holds nothing but stock ops and what they read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from savedmodels.export import ExportOptions, export
from savedmodels.graph_ops import exported_ops
from savedmodels.inputs import columnar_specs, input_columns
from savedmodels.names import input_name
from savedmodels.recorded import read_requests
from savedmodels.signatures import Signatures
from savedmodels.verify import verify
from tests.savedmodels.small_model import SPEC, columnar, features
from tfdlrm.config import DLRMConfig, FeatureConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.models import DLRM, DLRMDCNv2

# What an export may hold. An op that is missing here is not wrong; look at why it came, and then add it.
FUNCTIONS_VARIABLES_AND_FILES = """
    Assert AssignVariableOp Const DisableCopyOnRead Identity If MergeV2Checkpoints NoOp Placeholder ReadVariableOp
    RestoreV2 SaveV2 Select ShardedFilename StatefulPartitionedCall StaticRegexFullMatch StringJoin VarHandleOp
"""
EXAMPLES_AND_RANKING = "ParseExampleV2 TopKV2 ClipByValue Minimum"
IDS_AND_ROWS = """
    All Any AsString Bitcast BitwiseXor Cumsum Equal FloorDiv FloorMod GatherNd GatherV2 GreaterEqual Less LessEqual
    LogicalOr Max Maximum Prod Range ResourceGather RightShift SelectV2 Size UnsortedSegmentSum Where
"""
SHAPES = (
    "BroadcastTo Cast ConcatV2 ExpandDims Fill Pack Reshape Shape SplitV Squeeze StridedSlice Tile Unpack ZerosLike"
)
ARITHMETIC = """
    AddV2 BatchMatMulV2 BiasAdd DivNoNan IsFinite IsNan LogicalNot MatMul Mean Mul Neg Relu Rsqrt Sigmoid
    Sqrt SquaredDifference StopGradient Sub Sum
"""
ALLOWED_OPS = {
    op
    for ops in (FUNCTIONS_VARIABLES_AND_FILES, EXAMPLES_AND_RANKING, IDS_AND_ROWS, SHAPES, ARITHMETIC)
    for op in ops.split()
}


@pytest.mark.parametrize("batch_size", [1, 5])
def test_an_export_gives_the_live_models_numbers(model, tmp_path, batch_size):
    folder = export(model, tmp_path, spec=SPEC)
    outputs = tf.saved_model.load(str(folder)).signatures["predict"](**columnar(features(batch_size, 7)))
    logit = model(features(batch_size, 7), training=False).numpy()
    np.testing.assert_allclose(outputs["logit"], logit, rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs["probability"], 1 / (1 + np.exp(-logit.astype("f8"))), rtol=0, atol=1e-6)
    assert outputs["probability"].shape == (batch_size, 1)


def test_other_layers_export_as_well(rich_model, tmp_path):
    folder = export(rich_model, tmp_path, spec=SPEC)
    outputs = tf.saved_model.load(str(folder)).signatures["predict"](**columnar(features(4, 7)))
    logit = rich_model(features(4, 7), training=False)
    np.testing.assert_allclose(outputs["logit"], logit, rtol=0, atol=1e-6)


def test_a_table_up_to_its_quotient_remainder_threshold_is_exported_whole(tmp_path):
    split = QuotientRemainderConfig(collisions=3)
    tables = [
        TableConfig(name=name, vocabulary_size=rows, embedding_dim=4, quotient_remainder=split)
        for name, rows in (("small", 200), ("large", 201))
    ]
    config = DLRMConfig(
        num_dense=1,
        tables=tables,
        features=[FeatureConfig(name=table.name) for table in tables],
        embedding_dim=4,
        bottom_mlp=(4,),
        top_mlp=(1,),
    )
    model = DLRM(config)
    batch = {"dense": tf.ones([3, 1]), "small": tf.constant([0, 7, 199]), "large": tf.constant([0, 7, 200])}
    logit = model(batch)
    assert [piece.name for piece in model.embeddings.tables.slices() if piece.name.endswith("rows")] == [
        "small/rows",
        "large/quotient/rows",
        "large/remainder/rows",
    ]
    loaded = tf.saved_model.load(str(export(model, tmp_path)))
    inputs = {name: value if name == "dense" else tf.cast(value, tf.int64) for name, value in batch.items()}
    np.testing.assert_allclose(loaded.signatures["predict"](**inputs)["logit"], logit, rtol=0, atol=1e-6)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_without_features_there_are_no_vectors_to_give(tmp_path, quantize):
    spec = dataclasses.replace(SPEC, categorical=(), vocabulary_sizes={})
    model = DLRM(DLRMConfig.from_schema(spec, embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)))
    model.build()
    given = {"preprocessing": Preprocessing(spec=spec)}
    folder = export(model, tmp_path, options=ExportOptions(quantize=quantize), **given)
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "predict"}
    for name, requests in read_requests(folder).items():
        for inputs, expected in requests:
            outputs = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
            np.testing.assert_allclose(outputs["logit"], expected["logit"], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="signature 'embed' gives features' vectors, and the model has none"):
        export(model, tmp_path, options=ExportOptions(signatures=("embed",)), **given)


@pytest.mark.parametrize(
    "options",
    [{}, {"interaction": "cat"}, {"architecture": "dcnv2", "cross_layers": 2, "cross_rank": 4}],
    ids=["dot", "cat", "cross"],
)
@pytest.mark.parametrize("raw", [False, True], ids=["ids", "raw"])
def test_without_dense_columns_no_signature_has_any(tmp_path, options, raw):
    spec = dataclasses.replace(SPEC, dense=())
    kind = DLRMDCNv2 if "architecture" in options else DLRM
    model = kind(DLRMConfig.from_schema(spec, embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1), **options))
    model.build()
    given = {"preprocessing": Preprocessing(spec=spec)} if raw else {"spec": spec}
    folder = export(model, tmp_path, options=ExportOptions(candidates=("query", "tags")), **given)
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "predict", "rank", "embed"}
    for name, requests in read_requests(folder).items():
        assert requests
        for inputs, expected in requests:
            assert "dense" not in inputs
            assert "dense_vector" not in expected
            outputs = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
            for key, value in expected.items():
                np.testing.assert_allclose(outputs[key], value, rtol=0, atol=1e-6, err_msg=f"{name} {key}")
    if raw and not options:  # in a process of its own, which takes some seconds
        report = verify(folder, c_api=False)
        assert report.passed, report.problems
    with pytest.raises(ValueError, match=r"candidate features \['dense'\] are not of the model"):
        export(model, tmp_path, options=ExportOptions(candidates=("dense",)), **given)


def test_predict_is_columnar_and_ids_are_int64(model):
    specs = Signatures(model, SPEC).specs
    assert {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()} == {
        "dense": ("float32", [None, 2]),
        "user": ("int64", [None]),
        "last_items": ("int64", [None, 3]),
        "genres": ("int64", [None]),
        "genres_row_lengths": ("int64", [None]),
        "genres_weights": ("float32", [None]),
        "query": ("int64", [None]),
        "tags": ("int64", [None]),
        "tags_row_lengths": ("int64", [None]),
    }


def test_only_known_stock_ops_are_exported(model, rich_model, tmp_path):
    for each in (model, rich_model):
        ops = exported_ops(export(each, tmp_path, spec=SPEC, options=ExportOptions(candidates=("tags",))))
        assert sorted(ops - ALLOWED_OPS) == []
        assert "ResourceGather" in ops


def test_optimizer_state_stays_behind(model, tmp_path):
    folder = export(model, tmp_path, spec=SPEC)
    stored = sum(int(np.prod(shape)) for _, shape in tf.train.list_variables(str(folder / "variables" / "variables")))
    rows = sum(300 * 8 if t == "user" else size * 8 for t, size in SPEC.vocabulary_sizes.items())
    dense = sum(int(np.prod(w.shape)) for layer in (model.bottom_mlp, *model.top_mlps) for w in layer.weights)
    # beside rows and dense weights only TensorFlow's own record of the objects, one string
    assert stored - rows - dense == 1


def test_versions_count_up_and_appear_whole(model, tmp_path):
    assert export(model, tmp_path, spec=SPEC).name == "1"
    assert export(model, tmp_path, spec=SPEC, version=7).name == "7"
    assert export(model, tmp_path, spec=SPEC).name == "8"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "7", "8"]
    with pytest.raises(FileExistsError, match="7 is there already"):
        export(model, tmp_path, version=7)
    with pytest.raises(ValueError, match="version=0"):
        export(model, tmp_path, version=0)


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr("savedmodels.export.foreign_ops", lambda folder: ["TfdlrmEmbeddingBag"])
    with pytest.raises(ValueError, match="TfdlrmEmbeddingBag"):
        export(model, tmp_path, spec=SPEC)
    assert list(tmp_path.iterdir()) == []


def test_wrong_row_lengths_are_refused_by_name(model):
    signatures = Signatures(model, SPEC)
    function = signatures.trace(["predict"])["predict"]
    good = columnar(features(4, 3))
    for lengths in (good["tags_row_lengths"] + 1, good["tags_row_lengths"][:-1], -good["tags_row_lengths"]):
        inputs = {name: tf.cast(value, signatures.specs[name].dtype) for name, value in good.items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match="tags_row_lengths"):
            function({**inputs, "tags_row_lengths": lengths})


def test_an_id_out_of_range_is_refused_by_name(model, tmp_path):
    signature = tf.saved_model.load(str(export(model, tmp_path, spec=SPEC))).signatures["predict"]
    inputs = columnar(features(4, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"user.*id 300 in row 2"):
        signature(**{**inputs, "user": tf.constant([1, 2, 300, 3], tf.int64)})


def test_names_that_would_be_one_get_a_number():
    table = TableConfig(name="t", vocabulary_size=5, embedding_dim=4)
    features = (FeatureConfig(name="a b", table=table), FeatureConfig(name="a-b", table=table))
    config = DLRMConfig(num_dense=1, features=features, embedding_dim=4, bottom_mlp=(4,), top_mlp=(1,))
    assert list(columnar_specs(config, input_columns(config, None, raw=False))) == ["dense", "a_b", "a_b_2"]


@pytest.mark.parametrize(
    ("feature", "name"),
    [("user", "user"), ("hour of day", "hour_of_day"), ("2nd", "feature_2nd"), ("self", "feature_self")],
)
def test_input_names(feature, name):
    assert input_name(feature) == name


def test_a_model_without_weights_is_refused(tmp_path):
    model = DLRM(DLRMConfig.from_schema(SPEC, embedding_dim=8, bottom_mlp=(8,), top_mlp=(1,)))
    with pytest.raises(ValueError, match="not built"):
        export(model, tmp_path)
