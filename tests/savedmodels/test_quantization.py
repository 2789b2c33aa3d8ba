"""Rows of fewer bits: the reference's bytes, bounds that hold, and what it costs in scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from savedmodels.export import ExportOptions, export
from savedmodels.manifest import MANIFEST_FILE
from savedmodels.pruning import frequent_rows
from savedmodels.quality import compare
from savedmodels.quantization import RowFormat, encode_int4, encode_int8, row_format
from savedmodels.recorded import read_requests
from tests.golden_files import golden_files
from tests.savedmodels.small_model import SPEC, build, columnar, features
from tfdlrm.config import DataConfig, DLRMConfig, SyntheticConfig
from tfdlrm.data.opening import open_dataset
from tfdlrm.models.dlrm import DLRM

CASES = [
    (file, key.removeprefix("weights_"))
    for file in golden_files("quantized_rows*.npz")
    for key in np.load(file, allow_pickle=False).files
    if key.startswith("weights_")
]


@pytest.mark.parametrize(("file", "shape"), CASES)
@pytest.mark.parametrize(("kind", "encode"), [("int8", encode_int8), ("int4", encode_int4)])
def test_rows_are_the_references_bytes(file, shape, kind, encode):
    golden = np.load(file, allow_pickle=False)
    weights = golden[f"weights_{shape}"]
    np.testing.assert_array_equal(encode(weights), golden[f"{kind}_{shape}"])
    decoded = RowFormat(kind=kind, width=weights.shape[1]).decode(tf.constant(golden[f"{kind}_{shape}"]))
    # x = scale * code + minimum in one rounding there, in two here
    expected = golden[f"{kind}_dequantized_{shape}"]
    np.testing.assert_allclose(decoded, expected, rtol=0, atol=2.0**-23 * np.abs(expected).max())


ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 40)),
    elements=st.floats(-1000.0, 1000.0, width=32, allow_subnormal=False),
)


@settings(deadline=None)
@given(ROWS, st.sampled_from(["bf16", "int8", "int4", "none"]))
def test_no_row_is_further_off_than_its_bound(rows, quantization):
    form = row_format(quantization, rows.shape[1])
    stored = form.encode(rows)
    assert stored.shape == (len(rows), form.stored_width)
    assert stored.dtype.itemsize * stored.shape[1] == form.row_bytes
    errors = np.abs(form.decode(tf.constant(stored)).numpy() - rows).max(axis=1)
    assert (errors <= form.error_bound(rows)).all()


def test_sizes():
    assert row_format("int8", 16).row_bytes / 64 <= 0.33
    assert row_format("int4", 16).row_bytes / 64 <= 0.2
    assert row_format("int8", 64).kind == "int8"  # the reference's layout where it pays
    assert row_format("none", 16, "bfloat16").row_bytes == 32
    with pytest.raises(ValueError, match=r"quantize='int2' is unknown. Use one of: none, bf16, int8, int4"):
        row_format("int2", 16)


@pytest.mark.parametrize("quantize", ["bf16", "int8", "int4"])
def test_the_export_gives_the_live_models_scores_with_rounded_rows(model, tmp_path, quantize):
    folder = export(model, tmp_path, spec=SPEC, options=ExportOptions(quantize=quantize, part_bytes=2000))
    predict = tf.saved_model.load(str(folder)).signatures["predict"]
    for inputs, outputs in read_requests(folder)["predict"]:
        answers = predict(**{name: tf.constant(value) for name, value in inputs.items()})
        np.testing.assert_allclose(answers["logit"], outputs["logit"], rtol=0, atol=1e-6)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert set(manifest["row_errors"]) == set(SPEC.vocabulary_sizes)
    for errors in manifest["row_errors"].values():
        assert 0 < errors["largest"] <= errors["bound"]
        assert errors["beyond_bound"] == 0
    rows = sum(SPEC.vocabulary_sizes.values())
    assert manifest["sizes"]["rows"] == rows * row_format(quantize, 8).row_bytes


@pytest.fixture(scope="module")
def synthetic():
    """A model of two tables, and rows that use few of its ids."""
    config = SyntheticConfig(num_rows=3000, num_dense=2, vocabulary_sizes=(400, 30))
    data = open_dataset(DataConfig(format="synthetic", split="time", synthetic=config))
    model = DLRM(DLRMConfig.from_schema(data.spec, embedding_dim=16, bottom_mlp=(8, 16), top_mlp=(8, 1)))
    model.compile("adam", "mse")
    model.fit(data.train.batches(256), shuffle=False, verbose=0)
    return model, data


def test_pruned_rows_read_as_zeros(synthetic, tmp_path):
    model, data = synthetic
    kept = frequent_rows(model, data.train, 3)
    name = data.spec.table_names[0]
    assert 0 < kept[name].sum() < len(kept[name])
    counts = np.zeros(400, np.int64)
    for inputs, _ in data.train.batches(500):
        np.add.at(counts, inputs[data.spec.feature_names[0]].numpy().ravel(), 1)
    np.testing.assert_array_equal(kept[name], counts >= 3)
    folder = export(model, tmp_path, preprocessing=data.preprocessing, options=ExportOptions(kept=kept))
    ids = np.arange(400)
    inputs = {"dense": np.zeros([400, 2], np.float32), **dict.fromkeys(data.spec.feature_names, ids % 30)}
    inputs[data.spec.feature_names[0]] = ids
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    found = tf.saved_model.load(str(folder)).signatures["embed"](**tensors)["embeddings"].numpy()[:, 0]
    rows = model.embeddings.tables.rows(name).numpy()
    np.testing.assert_array_equal(found, np.where(kept[name][:, np.newaxis], rows, 0))
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert manifest["sizes"]["rows"] < 430 * 64
    with pytest.raises(ValueError, match="at_least=0"):
        frequent_rows(model, data.train, 0)


def test_metrics_before_and_after(synthetic):
    model, data = synthetic
    same = compare(model, data.test, ExportOptions())
    assert same.change("auc") == 0
    coarse = compare(model, data.test, ExportOptions(quantize="int4"))
    assert coarse.live == same.live
    assert coarse.exported["log_loss"] != coarse.live["log_loss"]
    assert abs(coarse.change("auc")) < 0.05
    # the model is as it was
    assert compare(model, data.test, ExportOptions()).exported == same.live


def test_rank_scores_as_full_rows(model, tmp_path):
    candidates = ("last items", "tags", "dense")
    folder = export(model, tmp_path, spec=SPEC, options=ExportOptions(candidates=candidates))
    signatures = tf.saved_model.load(str(folder)).signatures
    batch, count = features(50, 3), 50
    user = features(1, 4)
    mixed = {**columnar(user), **{k: v for k, v in columnar(batch).items() if k.startswith(("dense", "last", "tags"))}}
    found = signatures["rank"](**mixed, k=tf.constant(7))
    full = {**batch}
    for name in ("user", "query"):
        full[name] = tf.repeat(user[name], count, axis=0)
    ids, weights = user["genres"]
    lengths = tf.repeat(ids.row_lengths(), count)
    repeated = tf.RaggedTensor.from_row_lengths(tf.tile(ids.flat_values, [count]), lengths)
    full["genres"] = (repeated, repeated.with_flat_values(tf.tile(weights.flat_values, [count])))
    expected = model.predict_on_batch(full)
    np.testing.assert_allclose(found["logit"], expected, rtol=0, atol=1e-5)
    order = np.argsort(-found["logit"].numpy()[:, 0], kind="stable")[:7]
    np.testing.assert_array_equal(found["top_index"], order)
    np.testing.assert_array_equal(found["top_probability"], found["probability"].numpy()[order, 0])
    assert signatures["rank"](**mixed, k=tf.constant(1000))["top_index"].shape == (50,)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (("nothing",), r"candidate features \['nothing'\] are not of the model"),
        (("dense", *SPEC.feature_names), "leave"),
    ],
)
def test_candidates_that_cannot_be(model, tmp_path, candidates, message):
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path, spec=SPEC, options=ExportOptions(candidates=candidates))
    with pytest.raises(ValueError, match="signature 'rank' needs to know"):
        export(model, tmp_path, spec=SPEC, options=ExportOptions(signatures=("rank",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"interaction": "cat"}, {"interact_itself": True, "interaction_padding": 8}])
def test_other_interactions_rank_too(tmp_path, options):
    folder = export(build(**options), tmp_path, spec=SPEC, options=ExportOptions(candidates=("user", "tags")))
    rank = tf.saved_model.load(str(folder)).signatures["rank"]
    for inputs, outputs in read_requests(folder)["rank"]:
        answers = rank(**{name: tf.constant(value) for name, value in inputs.items()})
        np.testing.assert_allclose(answers["logit"], outputs["logit"], rtol=0, atol=1e-5)
