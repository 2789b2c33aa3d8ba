"""Rows in fewer bytes: what is stored, how it is rounded, and that kernels and TensorFlow's ops store the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.golden_files import golden_files
from tests.kernels import NATIVE, TENSORFLOW, kernels
from tfdlrm.config import FeatureConfig, TableConfig
from tfdlrm.embeddings import row_types
from tfdlrm.embeddings.checkpoint import restore_tables, save_tables
from tfdlrm.embeddings.optimizers import SGD, LazyAdam, RowOptimizer, RowwiseAdagrad
from tfdlrm.embeddings.placement.rows import RowArray
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.layers import EmbeddingCollection

QUANTIZED = [
    (path, name.removeprefix("weights_"))
    for path in golden_files("quantized_rows*.npz")
    for name in np.load(path, allow_pickle=False).files
    if name.startswith("weights_")
]
V, D = 40, 5


@pytest.mark.parametrize(("path", "shape"), QUANTIZED, ids=lambda value: getattr(value, "stem", value))
def test_int8_rows_are_the_references(path: Path, shape: str) -> None:
    golden = np.load(path, allow_pickle=False)
    weights = tf.constant(golden[f"weights_{shape}"])
    stored = row_types.narrow(weights, "int8")
    np.testing.assert_array_equal(stored.numpy(), golden[f"int8_{shape}"])
    expected = golden[f"int8_dequantized_{shape}"]
    np.testing.assert_allclose(row_types.widen(stored, "int8").numpy(), expected, rtol=1e-6, atol=1e-5)
    assert stored.shape[1] == row_types.row_bytes("int8", weights.shape[1])


@pytest.mark.parametrize(
    ("dtype", "gap"), [("bfloat16", lambda x: np.abs(x) * 2.0**-7), ("float16", lambda x: np.abs(x) * 2.0**-10)]
)
def test_rounding_is_right_on_average_and_never_further_than_one_gap(dtype: str, gap: Any) -> None:
    values = np.float32([1.001, -0.3, 3e-5, -70.7, 6.2e-5, 123.4, 0.0, 1.0])
    many = 4000
    rounded = row_types.round_stochastically(
        tf.constant(np.tile(values, (many, 1))), dtype, 7, tf.constant(3, tf.int64), tf.range(many)
    )
    found = tf.cast(rounded, tf.float64).numpy()
    limit = np.maximum(gap(values.astype(np.float64)), 2.0**-24)
    assert (np.abs(found - values) <= limit).all()
    # the mean of many has a deviation of at most half a gap / sqrt(many); five of them
    assert (np.abs(found.mean(axis=0) - values) <= 2.5 * limit / np.sqrt(many)).all()
    assert (found[:, 6:] == [0.0, 1.0]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_keeps_what_is_not_finite_and_makes_nothing_infinite(dtype: str) -> None:
    values = tf.constant([[np.inf, -np.inf, np.nan, 3.4e38, -3.4e38]], tf.float32)
    rows = tf.constant([9])
    found = tf.cast(
        row_types.round_stochastically(values, dtype, 1, tf.constant(0, tf.int64), rows), tf.float32
    ).numpy()[0]
    assert found[0] == np.inf
    assert found[1] == -np.inf
    assert np.isnan(found[2])
    assert np.isfinite(found[3:]).all()


def _layer(dtype: str, optimizer: RowOptimizer, **options: Any) -> EmbeddingCollection:
    table = TableConfig(name="t", vocabulary_size=V, embedding_dim=D, row_dtype=dtype, **options)  # type: ignore[arg-type]
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=3)], optimizer=optimizer, seed=2)
    layer.build()
    return layer


def _train(layer: EmbeddingCollection, steps: int, slope: float | None = None) -> np.ndarray:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        ids = tf.constant(rng.integers(0, V, (8, 3)))
        upstream = tf.constant(rng.normal(size=(8, 1, D)) if slope is None else slope, tf.float32, (8, 1, D))
        with tf.GradientTape() as tape, record_lookups(tape) as recorder:
            loss = tf.reduce_sum(upstream * layer({"f": ids}, training=True))
        recorder.update(tape.gradient(loss, recorder.leaves))
    return layer.tables.rows("t").numpy()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", [SGD(0.1), RowwiseAdagrad(0.1), LazyAdam(0.01)], ids=lambda o: o.name)
def test_kernels_and_tensorflow_store_the_same_bits(dtype: str, optimizer: RowOptimizer) -> None:
    stored = []
    for which in (NATIVE, TENSORFLOW):
        with kernels(which):
            stored.append(_train(_layer(dtype, optimizer), 1))
    different = np.mean(stored[0] != stored[1])
    # float32 sums may differ in the last bit, which now and then tips a rounding
    assert different < 0.02
    unit = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    np.testing.assert_allclose(stored[0], stored[1], rtol=unit, atol=1e-7)


@pytest.mark.parametrize("which", [NATIVE, TENSORFLOW])
def test_training_in_half_the_memory_follows_float32(which: str) -> None:
    with kernels(which):
        whole, half = _layer("float32", SGD(0.01)), _layer("bfloat16", SGD(0.01))
        assert half.tables.num_bytes * 2 == whole.tables.num_bytes
        start = half.tables.rows("t").numpy()
        expected = _train(whole, 60, 0.02) - start
        found = _train(half, 60, 0.02) - start
    # a step moves a row by 0.0002, less than half of what bfloat16 resolves at 0.1: rounded to the nearest, rows
    # would stay where they were
    assert abs(expected.mean()) > 0.005
    assert found.mean() == pytest.approx(expected.mean(), rel=0.05)


@pytest.mark.parametrize("which", [NATIVE, TENSORFLOW])
def test_a_run_repeats(which: str) -> None:
    with kernels(which):
        np.testing.assert_array_equal(
            _train(_layer("bfloat16", RowwiseAdagrad(0.1)), 5), _train(_layer("bfloat16", RowwiseAdagrad(0.1)), 5)
        )


@pytest.mark.parametrize("which", [NATIVE, TENSORFLOW])
def test_a_trained_table_is_restored_into_int8_rows(which: str, tmp_path: Path) -> None:
    with kernels(which):
        trained = _layer("float32", SGD(0.1))
        rows = _train(trained, 3)
        save_tables(trained.tables, tmp_path / "tables")
        small = _layer("int8", SGD(0.1), trainable=False)
        restore_tables(small.tables, tmp_path / "tables", weights_only=True)
        assert small.tables.num_bytes == V * (D + 8)
        bound = (rows.max(axis=1, keepdims=True) - rows.min(axis=1, keepdims=True)) / 255 / 2 + 1e-6
        assert (np.abs(small.tables.rows("t").numpy() - rows) <= bound).all()
        ids = tf.constant([[1, 2, 2], [39, 0, 7]])
        with tf.GradientTape() as tape, record_lookups(tape):
            pooled = small({"f": ids}).numpy()
    expected = small.tables.rows("t").numpy()[ids.numpy()].sum(axis=1)
    np.testing.assert_allclose(pooled[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_checkpoints_are_float32_whatever_is_stored(tmp_path: Path) -> None:
    half = _layer("bfloat16", SGD(0.1))
    rows = _train(half, 2)
    save_tables(half.tables, tmp_path / "tables")
    for dtype in ("bfloat16", "float32"):
        again = _layer(dtype, SGD(0.1))
        restore_tables(again.tables, tmp_path / "tables")
        np.testing.assert_array_equal(again.tables.rows("t").numpy(), rows)


def test_tables_of_different_types_are_not_fused() -> None:
    table = TableConfig(name="a", vocabulary_size=3, embedding_dim=2)
    features = [
        FeatureConfig(name=name, table=dataclasses.replace(table, name=name, row_dtype=dtype))
        for name, dtype in (("a", "float32"), ("b", "bfloat16"), ("c", "bfloat16"))
    ]
    layer = EmbeddingCollection(features)
    assert [len(stack.tables) for stack in layer.tables.plan.stacks] == [1, 2]
    assert layer({name: tf.constant([1, 2]) for name in "abc"}).shape == (2, 3, 2)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table 't': row_dtype='int8' is for inference .* trainable to false"):
        TableConfig(name="t", vocabulary_size=3, embedding_dim=2, row_dtype="int8")
    with pytest.raises(ValueError, match="row_dtype='int4'"):
        TableConfig(name="t", vocabulary_size=3, embedding_dim=2, row_dtype="int4")  # type: ignore[arg-type]


def no_memory(**_):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_more_rows_than_an_array_can_have_are_refused_by_name(monkeypatch):
    # TensorFlow itself asks for memory for ten seconds before it says so
    monkeypatch.setattr(tf.raw_ops, "Empty", no_memory)
    with pytest.raises(ValueError, match=r"stack/rows: 2,000,000,000 rows of 14,901.2 GiB are more than the memory"):
        RowArray("stack/rows", 2_000_000_000, 2_000)
    with pytest.raises(ValueError, match=r"stack/rows: 20,000,000,000 rows; an array of one process has at most"):
        RowArray("stack/rows", 20_000_000_000, 4)
