"""Lookups and updates of the engine against the NumPy oracle, on random tables, bags and weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tfdlrm.config import FeatureConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.embeddings.optimizers import (
    FTRL,
    SGD,
    Adagrad,
    LazyAdam,
    RowOptimizer,
    RowwiseAdagrad,
    row_optimizer_from_dict,
    row_optimizer_to_dict,
)
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.embeddings.tables import EmbeddingTables
from tfdlrm.layers import EmbeddingCollection

pytestmark = pytest.mark.usefixtures("both_kernels")

VOCABULARY, WIDTH = 12, 3

OPTIMIZERS: list[tuple[RowOptimizer, dict[str, Any]]] = [
    (SGD(0.3), {}),
    (SGD(0.3, weight_decay=0.1, l2=0.05), {"weight_decay": 0.1, "l2": 0.05}),
    (Adagrad(0.3), {}),
    (
        Adagrad(0.3, epsilon=1e-3, epsilon_placement="inside", initial_accumulator_value=0.1),
        {"epsilon": 1e-3, "inside": True, "initial_accumulator_value": 0.1},
    ),
    (RowwiseAdagrad(0.3), {}),
    (RowwiseAdagrad(0.3, l2=0.1, epsilon=1e-3), {"l2": 0.1, "epsilon": 1e-3}),
    (RowwiseAdagrad(0.3, epsilon=1e-2, epsilon_placement="inside"), {"epsilon": 1e-2, "inside": True}),
    (LazyAdam(0.05), {"epsilon": 1e-8}),
    (LazyAdam(0.05, beta_1=0.5, weight_decay=0.2), {"epsilon": 1e-8, "beta_1": 0.5, "weight_decay": 0.2}),
    (FTRL(0.3), {"initial_accumulator_value": 0.1}),
    (
        FTRL(0.3, l1=0.2, l2=0.1, beta=0.5, learning_rate_power=-0.7, initial_accumulator_value=0.2),
        {"l1": 0.2, "l2": 0.1, "beta": 0.5, "learning_rate_power": -0.7, "initial_accumulator_value": 0.2},
    ),
    (Adagrad(0.3, clipnorm=0.5), {"clipnorm": 0.5}),
]
IDS = [f"{optimizer.name}-{index}" for index, (optimizer, _) in enumerate(OPTIMIZERS)]

bags_of_ids = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=5), min_size=1, max_size=5)


def rows_of(tables: EmbeddingTables, name: str) -> np.ndarray:
    piece = tables.array(name)
    return piece.read(0, piece.total).numpy()


def ragged(bags: reference.Bags) -> Any:
    ids = tf.RaggedTensor.from_row_splits(tf.constant(bags.ids), tf.constant(bags.offsets))
    if bags.weights is None:
        return ids
    weights = tf.constant(bags.weights, tf.float32)
    return ids, tf.RaggedTensor.from_row_splits(weights, tf.constant(bags.offsets))


def weighted(bags: list[list[int]], seed: int) -> reference.Bags:
    """Bags with weights, also negative ones, whose sum is not near 0: a mean divides by it."""
    rng = np.random.default_rng(seed)
    weights = [rng.uniform(-1, 2, len(bag)).round(2) for bag in bags]
    for own in weights:
        if len(own) and abs(own.sum()) < 0.1:
            own[0] += 1
    return reference.Bags.of(bags, [list(own) for own in weights])


def one_feature(combiner: str = "sum", optimizer: RowOptimizer | None = None, **table_options) -> EmbeddingCollection:
    table = TableConfig(name="t", vocabulary_size=VOCABULARY, embedding_dim=WIDTH, combiner=combiner, **table_options)
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=None)], optimizer=optimizer, seed=4)
    layer.build()
    return layer


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@given(bags=bags_of_ids, seed=st.one_of(st.none(), st.integers(0, 99)))
@settings(max_examples=25)
def test_pooling(combiner, bags, seed) -> None:
    layer = one_feature(combiner)
    expected_bags = reference.Bags.of(bags) if seed is None else weighted(bags, seed)
    expected = reference.pool(rows_of(layer.tables, "t/rows"), expected_bags, combiner)
    np.testing.assert_allclose(layer({"f": ragged(expected_bags)})[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("hotness", [1, 4])
@pytest.mark.parametrize("with_weights", [False, True])
def test_fixed_hotness_equals_ragged(combiner, hotness, with_weights) -> None:
    rng = np.random.default_rng(1)
    ids, weights = rng.integers(0, VOCABULARY, (6, hotness)), rng.random((6, hotness)).astype(np.float32)
    layer = one_feature(combiner)
    fixed = (tf.constant(ids), tf.constant(weights)) if with_weights else tf.constant(ids)
    by_bag = tf.nest.map_structure(tf.RaggedTensor.from_tensor, fixed)
    sparse = tf.nest.map_structure(_to_sparse, fixed)
    np.testing.assert_allclose(layer({"f": fixed}), layer({"f": by_bag}), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(layer({"f": sparse}), layer({"f": by_bag}))


def _to_sparse(dense: tf.Tensor) -> tf.SparseTensor:
    indices = np.argwhere(np.ones(dense.shape))
    return tf.SparseTensor(indices, tf.reshape(dense, [-1]), dense.shape)


def step(layer: EmbeddingCollection, inputs: dict[str, Any], upstream: np.ndarray) -> None:
    """One training step in which the gradient of the pooled vectors `[B, F, D]` is `upstream`."""
    with tf.GradientTape() as tape, record_lookups(tape) as recorder:
        loss = tf.reduce_sum(layer(inputs, training=True) * tf.constant(upstream, tf.float32))
    recorder.update(tape.gradient(loss, recorder.leaves))


@pytest.mark.parametrize(("optimizer", "settings_"), OPTIMIZERS, ids=IDS)
@given(data=st.data())
@settings(max_examples=8)
def test_updates(optimizer, settings_, data) -> None:
    """Several steps: duplicates summed first, touched rows as the oracle's, untouched rows bit for bit as they were."""
    combiner = data.draw(st.sampled_from(["sum", "mean", "sqrtn"]))
    layer = one_feature(combiner, optimizer)
    options = dict(settings_)
    start = options.pop("initial_accumulator_value", 0.0)
    table = rows_of(layer.tables, "t/rows")
    before, slots, touched = table.copy(), reference.new_slots(optimizer.name, table, start), set()
    rng = np.random.default_rng(0)
    for number in range(3):
        drawn = data.draw(bags_of_ids)
        bags = weighted(drawn, number) if data.draw(st.booleans()) else reference.Bags.of(drawn)
        upstream = rng.normal(size=(bags.num_bags, 1, WIDTH))
        step(layer, {"f": ragged(bags)}, upstream)
        gradients = upstream[:, 0][bags.bag_of_id] * bags.coefficients(combiner)[:, None]
        table, slots = reference.update_table(
            optimizer.name, table, slots, bags.ids, gradients, optimizer.learning_rate, number, **options
        )
        touched |= set(bags.ids)
    actual = rows_of(layer.tables, "t/rows")
    np.testing.assert_allclose(actual, table, rtol=2e-4, atol=2e-5)
    for name, values in slots.items():
        np.testing.assert_allclose(rows_of(layer.tables, f"t/{name}"), values, rtol=2e-4, atol=2e-5)
    untouched = sorted(set(range(VOCABULARY)) - touched)
    np.testing.assert_array_equal(actual[untouched], before[untouched])


@given(bags=bags_of_ids, seed=st.one_of(st.none(), st.integers(0, 99)))
@settings(max_examples=15)
def test_learned_pooling_weights(bags, seed) -> None:
    layer = one_feature(optimizer=Adagrad(0.3), pooling_weights="learned")
    chosen = np.random.default_rng(2).uniform(0.5, 2, VOCABULARY)
    layer.tables.assign_pooling_weights("t", chosen)
    bags = reference.Bags.of(bags) if seed is None else weighted(bags, seed)
    table = rows_of(layer.tables, "t/rows")
    pooled = layer({"f": ragged(bags)})[:, 0]
    np.testing.assert_allclose(pooled, reference.pool(table, bags, "sum", chosen), rtol=1e-5, atol=1e-6)
    upstream = np.random.default_rng(3).normal(size=(bags.num_bags, 1, WIDTH))
    step(layer, {"f": ragged(bags)}, upstream)
    spread, weights = upstream[:, 0][bags.bag_of_id], bags.coefficients("sum")
    by_row = spread * (weights * chosen[bags.ids])[:, None]
    by_weight = ((table[bags.ids] * spread).sum(axis=1) * weights)[:, None]
    rows, _ = reference.update_table("adagrad", table, reference.new_slots("adagrad", table), bags.ids, by_row, 0.3)
    column = chosen[:, None]
    learned, _ = reference.update_table(
        "adagrad", column, reference.new_slots("adagrad", column), bags.ids, by_weight, 0.3
    )
    np.testing.assert_allclose(rows_of(layer.tables, "t/rows"), rows, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rows_of(layer.tables, "t/pooling_weights"), learned, rtol=1e-3, atol=1e-4)


def test_fixed_pooling_weights_stay() -> None:
    layer = one_feature(optimizer=SGD(0.3), pooling_weights="fixed")
    layer.tables.assign_pooling_weights("t", np.arange(VOCABULARY))
    step(layer, {"f": tf.ragged.constant([[1, 2], []], dtype=tf.int64)}, np.ones((2, 1, WIDTH)))
    np.testing.assert_array_equal(rows_of(layer.tables, "t/pooling_weights")[:, 0], np.arange(VOCABULARY))


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_quotient_remainder(operation) -> None:
    width = 2 * WIDTH if operation == "concat" else WIDTH
    split = QuotientRemainderConfig(collisions=5, operation=operation, threshold=0)
    table = TableConfig(name="t", vocabulary_size=VOCABULARY, embedding_dim=width, quotient_remainder=split)
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=None)])
    layer.build()
    bags = reference.Bags.of([[0, 4, 5, 11], [], [7, 7]])
    quotient, remainder = (rows_of(layer.tables, f"t/{part}/rows") for part in ("quotient", "remainder"))
    assert (len(quotient), len(remainder)) == (3, 5)
    high, low = reference.split_bags(bags, 5)
    expected = reference.combine(operation, reference.pool(quotient, high), reference.pool(remainder, low))
    np.testing.assert_allclose(layer({"f": ragged(bags)})[:, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_a_table_up_to_the_threshold_is_whole(operation) -> None:
    plain = TableConfig(name="t", vocabulary_size=VOCABULARY, embedding_dim=WIDTH, pooling_weights="learned")
    split = QuotientRemainderConfig(collisions=5, operation=operation, threshold=VOCABULARY)
    # what a split table cannot have, a whole one has: an odd width, weighted pooling
    whole = dataclasses.replace(plain, quotient_remainder=split)
    layers = [
        EmbeddingCollection([FeatureConfig(name="f", table=table, hotness=None)], optimizer=RowwiseAdagrad(0.1))
        for table in (plain, whole)
    ]
    for layer in layers:
        layer.build()
    names = [[(piece.name, piece.total, piece.width) for piece in layer.tables.slices()] for layer in layers]
    assert names[0] == names[1]
    assert names[0][0] == ("t/rows", VOCABULARY, WIDTH)
    ids = {"f": ragged(reference.Bags.of([[0, 4, 5, 11], [], [7, 7]]))}
    for layer in layers:
        step(layer, ids, np.ones((3, 1, WIDTH)))
    np.testing.assert_array_equal(layers[0](ids), layers[1](ids))
    for name, _, _ in names[0]:
        np.testing.assert_array_equal(rows_of(layers[0].tables, name), rows_of(layers[1].tables, name))


def test_quotient_remainder_keeps_ids_above_2_to_the_24() -> None:
    split = QuotientRemainderConfig(collisions=2**20, operation="add", threshold=0)
    table = TableConfig(name="t", vocabulary_size=2**40, embedding_dim=2, quotient_remainder=split)
    layer = EmbeddingCollection([FeatureConfig(name="f", table=table)])
    layer.build()
    big = 2**33 + 3
    expected = layer.tables.rows("t/quotient", big >> 20, (big >> 20) + 1) + layer.tables.rows("t/remainder", 3, 4)
    np.testing.assert_array_equal(layer({"f": tf.constant([big], tf.int64)})[:, 0], expected)


def mixed_features() -> list[FeatureConfig]:
    small = TableConfig(name="small", vocabulary_size=5, embedding_dim=WIDTH)
    large = TableConfig(name="large", vocabulary_size=40, embedding_dim=WIDTH, combiner="mean")
    other = TableConfig(name="other", vocabulary_size=9, embedding_dim=WIDTH, optimizer=SGD(0.7))
    return [
        FeatureConfig(name="a", table=small),
        FeatureConfig(name="b", table=large, hotness=3),
        FeatureConfig(name="c", table=small, hotness=None),
        FeatureConfig(name="d", table=other, id_policy="modulo"),
        FeatureConfig(name="e", table=large, hotness=None, id_policy="oov"),
    ]


def test_features_of_every_form_share_tables_and_keep_their_order() -> None:
    layer = EmbeddingCollection(mixed_features(), optimizer=SGD(0.2))
    layer.build()
    inputs = {
        "e": [[39, 40], []],
        "d": [[13], [2]],
        "c": [[4, 4], [1]],
        "b": [[1, 2, 3], [39, 0, 0]],
        "a": [[0], [4]],
    }
    fixed = {"a": [[0], [4]], "b": inputs["b"], "d": [[4], [2]]}
    seen = {**inputs, "d": fixed["d"], "e": [[39, 0], []]}
    tensors = {
        name: tf.constant(bags, tf.int64) if name in "abd" else tf.ragged.constant(bags, dtype=tf.int64)
        for name, bags in inputs.items()
    }
    order = [("a", "small", "sum"), ("b", "large", "mean"), ("c", "small", "sum"), ("d", "other", "sum")]
    order.append(("e", "large", "mean"))
    tables = {name: rows_of(layer.tables, f"{name}/rows").astype(np.float64) for name in ("small", "large", "other")}
    expected = [reference.pool(tables[table], reference.Bags.of(seen[name]), how) for name, table, how in order]
    np.testing.assert_allclose(layer(tensors), np.stack(expected, axis=1), rtol=1e-6, atol=1e-7)
    upstream = np.random.default_rng(5).normal(size=(2, 5, WIDTH))
    step(layer, tensors, upstream)
    for position, (name, table, how) in enumerate(order):
        bags = reference.Bags.of(seen[name])
        rate = 0.7 if table == "other" else 0.2
        gradients = upstream[:, position][bags.bag_of_id] * bags.coefficients(how)[:, None]
        np.add.at(tables[table], bags.ids, -rate * gradients)  # SGD is linear: features may be applied one by one
    for name, table in tables.items():
        np.testing.assert_allclose(rows_of(layer.tables, f"{name}/rows"), table, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("columns", [(), ("a",), ("a", "b", "c")])
def test_one_id_a_row_in_either_form(dtype, columns) -> None:
    """`[B]` for some features and `[B, 1]` for others; no feature has an op of its own where all are `[B]`."""
    tables = [TableConfig(name=f"t{name}", vocabulary_size=VOCABULARY, embedding_dim=WIDTH) for name in "abc"]
    features = [FeatureConfig(name=name, table=table) for name, table in zip("abc", tables, strict=True)]
    layer = EmbeddingCollection(features)
    layer.build()
    ids = {name: np.array([k, 5, 11 - k], dtype) for k, name in enumerate("abc")}
    given_ids = {name: tf.constant(one[:, None] if name in columns else one) for name, one in ids.items()}
    expected = [rows_of(layer.tables, f"t{name}/rows")[one] for name, one in ids.items()]
    np.testing.assert_array_equal(layer(given_ids), np.stack(expected, axis=1))
    np.testing.assert_array_equal(layer(ids), np.stack(expected, axis=1))


def test_tables_alike_are_fused_and_the_plan_says_why() -> None:
    plan = EmbeddingCollection(mixed_features(), optimizer=SGD(0.2)).tables.plan
    assert [[table.name for table in stack.tables] for stack in plan.stacks] == [["small", "large"], ["other"]]
    assert plan.reasons[0].startswith("stack_0: 2 tables of width 3 fused, 45 rows (same width")
    clipped = [TableConfig(name=n, vocabulary_size=4, embedding_dim=2, optimizer=SGD(1.0, clipnorm=1.0)) for n in "ab"]
    assert len(EmbeddingTables(clipped).plan.stacks) == 2


def test_an_all_empty_batch_changes_nothing() -> None:
    layer = one_feature(optimizer=Adagrad(0.3, weight_decay=0.5))
    before = rows_of(layer.tables, "t/rows")
    empty = tf.RaggedTensor.from_row_splits(tf.zeros([0], tf.int64), tf.zeros([3], tf.int64))
    step(layer, {"f": empty}, np.ones((2, 1, WIDTH)))
    np.testing.assert_array_equal(rows_of(layer.tables, "t/rows"), before)


def test_a_fused_update_equals_separate_ones() -> None:
    fused = EmbeddingCollection(mixed_features(), optimizer=RowwiseAdagrad(0.2), seed=9)
    # a table with a clipnorm of its own is not fused
    apart = EmbeddingCollection(mixed_features(), optimizer=RowwiseAdagrad(0.2, clipnorm=1e9), seed=9)
    ids = {"a": [[0], [0]], "b": [[1, 2, 2], [3, 0, 0]], "d": [[4], [2]]}
    tensors = {name: tf.constant(bags, tf.int64) for name, bags in ids.items()}
    tensors |= {name: tf.ragged.constant([[1, 1], []], dtype=tf.int64) for name in "ce"}
    upstream = np.random.default_rng(5).normal(size=(2, 5, WIDTH))
    for layer in (fused, apart):
        for _ in range(3):
            step(layer, tensors, upstream)
    assert len(apart.tables.plan.stacks) > len(fused.tables.plan.stacks)
    for piece in fused.tables.slices():
        ours, theirs = rows_of(fused.tables, piece.name), rows_of(apart.tables, piece.name)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=piece.name)


def test_without_any_learning_rate_the_tables_are_named() -> None:
    layer = one_feature(optimizer=SGD())
    with pytest.raises(ValueError, match=r"tables \['t'\]: SGD has no learning_rate"):
        step(layer, {"f": tf.ragged.constant([[1]], dtype=tf.int64)}, np.ones((1, 1, WIDTH)))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 6), (6, None)])
def test_rows_outside_of_a_table_are_refused(start, stop) -> None:
    tables = EmbeddingTables([TableConfig(name="t", vocabulary_size=5, embedding_dim=2)])
    tables.build()
    with pytest.raises(ValueError, match=r"t/rows: rows \[.*\) are outside \[0, 5\)"):
        tables.rows("t", start, stop)
    assert tables.rows("t", 5).shape == (0, 2)


def test_rows_by_name() -> None:
    layer = one_feature()
    with pytest.raises(KeyError, match="did you mean 't/rows'"):
        layer.tables.array("t/row")
    with pytest.raises(ValueError, match=r"t/rows: rows \[11, 13\) are outside \[0, 12\)"):
        layer.tables.assign_rows("t", np.zeros((2, WIDTH), np.float32), start=11)
    with pytest.raises(ValueError, match=r"got rows of shape \(2, 4\), need \(2, 3\)"):
        layer.tables.assign_rows("t", np.zeros((2, 4), np.float32))
    assert layer.tables.num_bytes == VOCABULARY * (WIDTH + 1) * 4


@pytest.mark.parametrize(("optimizer", "_"), OPTIMIZERS, ids=IDS)
def test_optimizer_round_trip(optimizer, _) -> None:
    assert row_optimizer_from_dict(row_optimizer_to_dict(optimizer)) == optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1.0), "SGD: learning_rate=-1.0"),
        (lambda: SGD(float("nan")), "SGD: learning_rate=nan"),
        (lambda: SGD("0.1"), "SGD: learning_rate='0.1'"),
        (lambda: LazyAdam(0.1, epsilon=float("inf")), "epsilon=inf"),
        (lambda: Adagrad(0.1, weight_decay=float("nan")), "weight_decay=nan"),
        (lambda: Adagrad(0.1, epsilon_placement="under"), "epsilon_placement='under'"),
        (lambda: Adagrad(0.1, initial_accumulator_value=-1.0), "initial_accumulator_value=-1.0"),
        (lambda: LazyAdam(0.1, beta_1=1.0), "beta_1=1.0"),
        (lambda: FTRL(0.0), "learning_rate=0.0"),
        (lambda: FTRL(0.1, learning_rate_power=0.5), "learning_rate_power=0.5"),
        (lambda: SGD(0.1, clipnorm=0.0), "clipnorm=0.0"),
        (lambda: row_optimizer_from_dict("adam"), "unknown name 'adam'"),
        (lambda: row_optimizer_from_dict({"name": "sgd", "learning_rat": 1}), "did you mean 'learning_rate'"),
        (lambda: row_optimizer_to_dict(SGD(lambda step: 0.1)), "is a schedule and cannot be written to YAML"),
    ],
)
def test_wrong_settings_are_refused_by_name(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("optimizer", ["adam", 0.1, keras.optimizers.Adam()])
def test_what_is_no_row_optimizer_is_refused(optimizer) -> None:
    table = TableConfig(name="t", vocabulary_size=3, embedding_dim=2)
    with pytest.raises(TypeError, match=r"is no row optimizer.*RowwiseAdagrad\(\)"):
        EmbeddingTables([table], optimizer)
