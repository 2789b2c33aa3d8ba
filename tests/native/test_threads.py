"""Lookups beside updates of the same table: whole rows only."""

from __future__ import annotations

import threading
import time

import numpy as np
import tensorflow as tf

from tests.native import tables
from tfdlrm.embeddings.optimizers import SGD
from tfdlrm.embeddings.placement.native import op_attributes
from tfdlrm.native.embedding import SINGLE_ROWS, LookupGradient, lookup, single_rows, update

V, D, SECONDS = 500, 48, 1.5


def test_lookups_see_rows_between_two_updates() -> None:
    table = tables.variable(np.zeros((V, D), np.float32))
    stop = time.monotonic() + SECONDS
    problems: list[str] = []
    counts = {"lookups": 0, "updates": 0}

    def train() -> None:
        rng = np.random.default_rng(0)
        while time.monotonic() < stop:
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
            counts["updates"] += 1

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        last = np.zeros(V)
        while time.monotonic() < stop:
            ids = rng.integers(0, V, 300)
            found = lookup(table.handle, None, single_rows(tf.constant(ids)), SINGLE_ROWS, D).numpy()[:, 0]
            if (found != found[:, :1]).any():
                problems.append("a row was seen in the middle of its update")
            if (found[:, 0] < last[ids]).any():
                problems.append("a row went back")
            last[ids] = np.maximum(last[ids], found[:, 0])
            counts["lookups"] += 1

    threads = [threading.Thread(target=train), *(threading.Thread(target=read, args=(seed,)) for seed in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert counts["lookups"] > 10
    assert counts["updates"] > 10
    # every update arrived, once
    assert table.numpy()[:, 0].sum() == 400 * counts["updates"]
