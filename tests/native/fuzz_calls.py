"""One round of `tools/fuzz.py --of calls`: random input for every kernel, checked against NumPy or refused."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from tests import reference
from tests.native import tables
from tfdlrm.embeddings import row_types
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowwiseAdagrad
from tfdlrm.embeddings.placement.native import op_attributes
from tfdlrm.native import loader
from tfdlrm.native.embedding import BagIds, BagLayout, LookupGradient, lookup, sum_rows, update

COMBINERS = ("sum", "mean", "sqrtn")
OPTIMIZERS = (
    SGD(),
    SGD(weight_decay=0.1),
    Adagrad(),
    RowwiseAdagrad(),
    RowwiseAdagrad(l2=0.1),
    LazyAdam(),
    FTRL(l1=0.1),
)


def run_round(seed: int) -> int:
    """Runs one round; returns 1 where its input was invalid and was refused.

    Raises:
        AssertionError: a wrong result, or invalid input that was taken.
    """
    rng = np.random.default_rng(seed)
    _interaction(rng)
    num_rows, width = int(rng.integers(1, 3000)), int(rng.integers(1, 300))
    columns, batch = int(rng.integers(1, 5)), int(rng.integers(0, 40))
    combiner = str(rng.choice(COMBINERS))
    id_dtype = (tf.int32, tf.int64)[int(rng.integers(2))]
    fixed = bool(rng.integers(2))
    hotness = tuple(int(h) for h in rng.integers(1, 6, columns)) if fixed else (0,) * columns
    lengths = np.repeat(hotness, batch) if fixed else rng.integers(0, 8, columns * batch)
    ids = np.minimum((num_rows * rng.random(int(lengths.sum())) ** 3).astype(np.int64), num_rows - 1)
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    weights = rng.uniform(0.1, 2, len(ids)).astype(np.float32) if rng.integers(2) else np.zeros(0, np.float32)
    layout = BagLayout(hotness, combiner)
    invalid = seed % 3 == 2
    if invalid:
        ids, splits, weights, layout = _spoil(rng, ids, splits, weights, layout, num_rows)
    bag_splits = (
        tf.zeros([0], tf.int64) if fixed and not (invalid and layout.hotness != hotness) else tf.constant(splits)
    )
    bags = BagIds(tf.constant(ids, id_dtype), bag_splits, tf.constant(weights))
    start = rng.normal(size=(num_rows, width)).astype(np.float32)
    dtype = str(rng.choice(["float32", "float32", "bfloat16", "float16"]))
    stored = row_types.narrow(tf.constant(start), dtype)
    table = tables.variable(stored.numpy(), stored.dtype)
    before = table.numpy().copy()
    optimizer = OPTIMIZERS[int(rng.integers(len(OPTIMIZERS)))]
    upstream = rng.normal(size=(batch, columns, width)).astype(np.float32)
    gradient = LookupGradient(bags, tf.constant(upstream))
    slots = [
        tables.variable(np.full((num_rows, slot.width or width), slot.initial_value, np.float32))
        for slot in optimizer.slots()
    ]

    def train() -> None:
        update(
            table.handle,
            [slot.handle for slot in slots],
            [(layout, gradient)],
            optimizer={**op_attributes(optimizer), "seed": seed},
            learning_rate=tf.constant(0.1),
            step=tf.constant(3, tf.int64),
            scale=tf.constant(0.5),
        )

    if invalid:
        for call in (
            lambda: lookup(table.handle, None, bags, layout, width),
            train,
            lambda: sum_rows([(layout, gradient)], num_rows, width),
        ):
            try:
                call()
            except tf.errors.InvalidArgumentError:
                continue
            raise AssertionError("invalid input was taken")
        np.testing.assert_array_equal(table.numpy(), before)
        return 1
    wide = row_types.widen(tf.constant(before), dtype).numpy()
    parts = [list(ids[a:b]) for a, b in itertools.pairwise(splits)]
    own = [weights[a:b] for a, b in itertools.pairwise(splits)] if len(weights) else None
    found = lookup(table.handle, None, bags, layout, width).numpy()
    expected = tables.pooled(wide, parts, combiner, own).reshape(columns, batch, width).transpose(1, 0, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    _check_update(train, table, slots, wide, dtype, optimizer, parts, own, combiner, upstream)
    return 0


def _spoil(rng: np.random.Generator, ids: Any, splits: Any, weights: Any, layout: BagLayout, num_rows: int) -> tuple:
    """Makes the bags of a lookup invalid in one way."""
    kind = int(rng.integers(3))
    if kind == 0 and len(ids):
        ids = ids.copy()
        ids[int(rng.integers(len(ids)))] = int(rng.choice([-1, num_rows, 2**31 - 1, -(2**31)]))
        return ids, splits, weights, layout
    if kind == 1:
        return ids, splits, np.ones(len(ids) + 1, np.float32), layout
    splits = splits.copy()
    splits[int(rng.integers(len(splits)))] = int(rng.choice([-5, len(ids) + 3, 2**40]))
    # by splits, whatever the bags were
    return ids, splits, weights, BagLayout((0,) * len(layout.hotness), layout.combiner)


def _check_update(train, table, slots, wide, dtype, optimizer, parts, own, combiner, upstream) -> None:  # type: ignore[no-untyped-def]
    batch, _, width = upstream.shape
    ids = np.array([i for part in parts for i in part], np.int64)
    by_id = np.zeros((len(ids), width))
    position = 0
    for bag, part in enumerate(parts):
        share = np.ones(len(part)) if own is None else own[bag].astype(np.float64)
        for coefficient in tables.coefficients(share, combiner) if part else ():
            by_id[position] = coefficient * upstream[bag % batch, bag // batch]
            position += 1
    names = {"epsilon": "epsilon", "l2": "l2", "weight_decay": "weight_decay", "l1": "l1"}
    options = {key: getattr(optimizer, name) for key, name in names.items() if getattr(optimizer, name, 0.0)}
    state = reference.new_slots(optimizer.name, wide, getattr(optimizer, "initial_accumulator_value", 0.0))
    expected, state = reference.update_table(
        optimizer.name, wide.astype(np.float64), state, ids, 0.5 * by_id, 0.1, 3, **options
    )
    train()
    found = row_types.widen(tf.constant(table.numpy()), dtype).numpy()
    # half-precision rows are rounded to one of two neighbours
    unit = {"float32": 1e-4, "bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    # Adagrad's first step is g / |g|: where duplicates cancel to the last bits its direction is theirs
    summed = np.zeros_like(expected)
    np.add.at(summed, ids, by_id)
    clear = (np.abs(summed) > 1e-5) | (summed == 0)
    np.testing.assert_allclose(found[clear], expected[clear], rtol=2 * unit, atol=1e-4)
    untouched = np.setdiff1d(np.arange(len(wide)), ids)
    np.testing.assert_array_equal(found[untouched], wide[untouched])
    for slot, variable in zip(optimizer.slots(), slots, strict=True):
        np.testing.assert_allclose(variable.numpy(), state[slot.name].reshape(len(wide), -1), rtol=1e-3, atol=1e-4)


def _interaction(rng: np.random.Generator) -> None:
    ops = loader.library()
    assert ops is not None
    batch, features, width = int(rng.integers(0, 9)), int(rng.integers(0, 30)), int(rng.integers(1, 70))
    itself, padding = bool(rng.integers(2)), int(rng.integers(1, 9))
    x = rng.normal(size=(batch, width)).astype(np.float32)
    e = rng.normal(size=(batch, features, width)).astype(np.float32)
    expected = reference.dot_interaction(x, e, itself, padding)
    out = ops.tfdlrm_interact(x=x, e=e, head=True, itself=itself, width=expected.shape[1])
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-4)
    upstream = rng.normal(size=expected.shape).astype(np.float32)
    found = ops.tfdlrm_interact_gradient(x=x, e=e, upstream=upstream, head=True, itself=itself)
    for gradient, right in zip(found, reference.dot_interaction_backward(upstream, x, e, itself), strict=True):
        np.testing.assert_allclose(gradient.numpy(), right, rtol=1e-4, atol=1e-4)
    masked, sums = ops.tfdlrm_activation_gradient(upstream=upstream, y=expected.astype(np.float32), relu=True)
    right = np.where(expected.astype(np.float32) > 0, upstream, 0)
    np.testing.assert_array_equal(masked.numpy(), right)
    np.testing.assert_allclose(sums.numpy(), right.sum(axis=0), rtol=1e-4, atol=1e-4)


class SharedTable:
    """A table that threads look up and update all the time; a row's values move together by whole numbers."""

    def __init__(self, seed: int, num_rows: int = 2000, width: int = 24):
        self._table = tables.variable(np.zeros((num_rows, width), np.float32))
        self._num_rows, self._width, self._seed = num_rows, width, seed
        self._stopped = threading.Event()
        self.calls = 0
        self.problems: list[str] = []

    def stop(self) -> None:
        self._stopped.set()

    def work(self, worker: int) -> None:
        rng = np.random.default_rng((self._seed, worker))
        layout = BagLayout((1,), "sum")
        while not self._stopped.is_set():
            ids = tables.fixed(rng.integers(0, self._num_rows, (1, 300, 1)))
            if worker == 0:
                gradient = LookupGradient(ids, tf.ones([300, 1, self._width]))
                update(
                    self._table.handle,
                    [],
                    [(layout, gradient)],
                    optimizer=op_attributes(SGD()),
                    learning_rate=tf.constant(1.0),
                    step=tf.constant(0, tf.int64),
                    scale=tf.constant(1.0),
                )
            else:
                found = lookup(self._table.handle, None, ids, layout, self._width).numpy()
                if (found != found[..., :1]).any():
                    self.problems.append("a lookup saw a row in the middle of its update")
            self.calls += 1
