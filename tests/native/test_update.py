"""The update kernel against NumPy: every optimizer, any width and bags; the same bits for any number of threads."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests.forked import Forked
from tests.native import tables
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowOptimizer, RowwiseAdagrad
from tfdlrm.embeddings.placement.native import op_attributes
from tfdlrm.native.embedding import SINGLE_ROWS, BagLayout, LookupGradient, single_rows, sum_rows, update

V = 19
OPTIMIZERS: list[tuple[RowOptimizer, dict[str, Any]]] = [
    (SGD(), {}),
    (SGD(weight_decay=0.1, l2=0.05), {"weight_decay": 0.1, "l2": 0.05}),
    (Adagrad(), {}),
    (Adagrad(epsilon=1e-3, epsilon_placement="inside", weight_decay=0.1), {"epsilon": 1e-3, "inside": True,
                                                                           "weight_decay": 0.1}),
    (RowwiseAdagrad(), {}),
    (RowwiseAdagrad(l2=0.1, epsilon=1e-3), {"l2": 0.1, "epsilon": 1e-3}),
    (LazyAdam(), {"epsilon": 1e-8}),
    (LazyAdam(beta_1=0.5, l2=0.1), {"epsilon": 1e-8, "beta_1": 0.5, "l2": 0.1}),
    (FTRL(), {}),
    (FTRL(l1=0.2, l2=0.1, beta=0.5, learning_rate_power=-0.7),
     {"l1": 0.2, "l2": 0.1, "beta": 0.5, "learning_rate_power": -0.7}),
]  # fmt: skip
IDS = [f"{optimizer.name}-{index}" for index, (optimizer, _) in enumerate(OPTIMIZERS)]


def _slots(optimizer: RowOptimizer, width: int) -> list[tf.Variable]:
    return [
        tables.variable(np.full((V, slot.width or width), slot.initial_value, np.float32)) for slot in optimizer.slots()
    ]


def _apply(table, slots, groups, optimizer, *, rate=0.3, step=0, scale=1.0) -> None:  # type: ignore[no-untyped-def]
    update(
        table.handle,
        [slot.handle for slot in slots],
        groups,
        optimizer=op_attributes(optimizer),
        learning_rate=tf.constant(rate),
        step=tf.constant(step, tf.int64),
        scale=tf.constant(scale),
    )


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS, ids=IDS)
@settings(max_examples=8)
@given(
    width=st.sampled_from([1, 3, 16, 17, 64, 100]),
    combiner=st.sampled_from(["sum", "mean", "sqrtn"]),
    weighted=st.booleans(),
    scale=st.sampled_from([1.0, 0.25]),
    seed=st.integers(0, 99),
)
def test_two_steps_of_two_lookups(
    optimizer: RowOptimizer, options: dict, width: int, combiner: str, weighted: bool, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(V, width)).astype(np.float32)
    table, slots = tables.variable(start), _slots(optimizer, width)
    initial = getattr(optimizer, "initial_accumulator_value", 0.0)
    expected, state = start.astype(np.float64), reference.new_slots(optimizer.name, start, initial)
    touched: set[int] = set()
    for step in range(2):
        bags = [list(rng.integers(0, V - 4, rng.integers(0, 5))) for _ in range(6)]
        weights = [list(rng.uniform(0.2, 2, len(bag)).astype(np.float32)) for bag in bags] if weighted else None
        single = rng.integers(0, V - 4, 5)
        upstream = rng.normal(size=(3, 2, width)).astype(np.float32)
        upstream_single = rng.normal(size=(5, width)).astype(np.float32)
        groups = [
            (BagLayout((0, 0), combiner), LookupGradient(tables.ragged(bags, weights=weights), tf.constant(upstream))),
            (SINGLE_ROWS, LookupGradient(single_rows(tf.constant(single)), tf.constant(upstream_single))),
        ]
        _apply(table, slots, groups, optimizer, step=step, scale=scale)
        by_id, ids = [], []
        for number, bag in enumerate(bags):
            own = np.ones(len(bag)) if weights is None else np.asarray(weights[number], np.float64)
            share = tables.coefficients(own, combiner)
            ids += bag
            by_id += [upstream[number % 3, number // 3].astype(np.float64) * c for c in share]
        ids += list(single)
        by_id += list(upstream_single.astype(np.float64))
        expected, state = reference.update_table(
            optimizer.name, expected, state, np.array(ids), scale * np.array(by_id), 0.3, step, **options
        )
        touched |= set(map(int, ids))
    np.testing.assert_allclose(table.numpy(), expected, rtol=2e-4, atol=2e-5)
    for slot, variable in zip(optimizer.slots(), slots, strict=True):
        np.testing.assert_allclose(variable.numpy(), state[slot.name].reshape(V, -1), rtol=2e-4, atol=2e-5)
    untouched = sorted(set(range(V)) - touched)
    np.testing.assert_array_equal(table.numpy()[untouched], start[untouched])


@settings(max_examples=30)
@given(
    rows=st.integers(1, 5000),
    count=st.integers(0, 4000),
    width=st.sampled_from([1, 16, 20]),
    dtype=st.sampled_from([tf.int32, tf.int64]),
    seed=st.integers(0, 99),
)
def test_sums_of_rows(rows: int, count: int, width: int, dtype: tf.DType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = np.minimum((rows * rng.random(count) ** 3).astype(np.int64), rows - 1)
    values = rng.normal(size=(count, width)).astype(np.float32)
    unique, sums = sum_rows(
        [(SINGLE_ROWS, LookupGradient(single_rows(tf.constant(ids, dtype)), tf.constant(values)))], rows, width
    )
    expected, index = np.unique(ids, return_inverse=True)
    total = np.zeros((len(expected), width))
    np.add.at(total, index, values.astype(np.float64))
    np.testing.assert_array_equal(unique.numpy(), expected)
    assert unique.dtype == dtype
    np.testing.assert_allclose(sums.numpy(), total, rtol=1e-4, atol=1e-4)


def test_an_empty_batch_changes_nothing() -> None:
    start = np.ones((V, 4), np.float32)
    table = tables.variable(start)
    empty = LookupGradient(single_rows(tf.zeros([0], tf.int64)), tf.zeros([0, 4]))
    _apply(table, [], [(SINGLE_ROWS, empty)], SGD(weight_decay=0.5))
    np.testing.assert_array_equal(table.numpy(), start)


def test_a_reader_of_the_whole_table_keeps_what_it_read() -> None:
    table = tables.variable(np.ones((V, 4), np.float32))
    before = table.read_value()
    gradient = LookupGradient(single_rows(tf.constant([3])), tf.ones([1, 4]))
    _apply(table, [], [(SINGLE_ROWS, gradient)], SGD(), rate=1.0)
    assert before.numpy()[3].tolist() == [1, 1, 1, 1]
    assert table.numpy()[3].tolist() == [0, 0, 0, 0]


_SCRIPT = """
import hashlib, sys
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from tests.forked import Forked
from tests.native import tables
from tests.native.test_update import _apply
from tfdlrm.embeddings.optimizers import RowwiseAdagrad
from tfdlrm.native.embedding import BagLayout, LookupGradient, lookup
rng = np.random.default_rng(0)
V, D, B, H = 30000, 20, 512, 9
table, slot = tables.variable(rng.normal(size=(V, D)).astype("f")), tables.variable(np.zeros((V, 1), "f"))
layout = BagLayout((H, H), "mean")
for step in range(3):
    ids = tables.fixed((V * rng.random((2, B, H)) ** 6).astype("int64"))
    pooled = lookup(table.handle, None, ids, layout, D)
    _apply(table, [slot], [(layout, LookupGradient(ids, tf.sin(pooled)))], RowwiseAdagrad(), step=step)
np.save(sys.argv[2], np.concatenate([table.numpy(), slot.numpy()], axis=1))
"""


def _trained(threads: int, isa: str, folder: Any) -> np.ndarray:
    file = folder / f"{threads}-{isa}.npy"
    environment = {**os.environ, "TFDLRM_NATIVE_ISA": isa, "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = Forked(_SCRIPT, threads, file, environment=environment).wait()
    assert done.returncode == 0, done.stderr
    return np.load(file, allow_pickle=False)


@pytest.mark.multiprocess
def test_the_same_bits_for_any_number_of_threads_and_nearly_so_for_any_instruction_set(tmp_path: Any) -> None:
    alone = _trained(1, "avx512", tmp_path)
    digests = {hashlib.sha256(_trained(threads, "avx512", tmp_path).tobytes()).hexdigest() for threads in (2, 8)}
    assert digests == {hashlib.sha256(alone.tobytes()).hexdigest()}
    for isa in ("avx2", "base"):
        np.testing.assert_allclose(_trained(2, isa, tmp_path), alone, rtol=1e-5, atol=1e-6)
