"""Lookups beside updates of the same table: whole rows only."""

from __future__ import annotations

import threading

import numpy as np
import tensorflow as tf

from tests.native import tables
from tfdlrm.embeddings.optimizers import SGD
from tfdlrm.embeddings.placement.native import op_attributes
from tfdlrm.native.embedding import SINGLE_ROWS, LookupGradient, lookup, single_rows, update

V, D, UPDATES, LOOKUPS = 500, 48, 300, 100


def test_lookups_see_rows_between_two_updates() -> None:
    table = tables.variable(np.zeros((V, D), np.float32))
    problems: list[str] = []

    def train() -> None:
        rng = np.random.default_rng(0)
        for _ in range(UPDATES):
            rows = single_rows(tf.constant(rng.integers(0, V, 400)))
            # all values of a row move by the same whole number
            group = (SINGLE_ROWS, LookupGradient(rows, -tf.ones([400, D])))
            update(
                table.handle,
                [],
                [group],
                optimizer=op_attributes(SGD()),
                learning_rate=tf.constant(1.0),
                step=tf.constant(0, tf.int64),
                scale=tf.constant(1.0),
            )

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        last = np.zeros(V)
        num_lookups = 0
        while num_lookups < LOOKUPS or threads[0].is_alive():
            num_lookups += 1
            ids = rng.integers(0, V, 300)
            found = lookup(table.handle, None, single_rows(tf.constant(ids)), SINGLE_ROWS, D).numpy()[:, 0]
            if (found != found[:, :1]).any():
                problems.append("a row was seen in the middle of its update")
            if (found[:, 0] < last[ids]).any():
                problems.append("a row went back")
            last[ids] = np.maximum(last[ids], found[:, 0])

    threads = [threading.Thread(target=train), *(threading.Thread(target=read, args=(seed,)) for seed in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    # every update arrived, once
    assert table.numpy()[:, 0].sum() == 400 * UPDATES
