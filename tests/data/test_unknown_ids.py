"""Shares of unknown ids: counted as NumPy does, and said where they rise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm import CategoricalColumn, FeatureSpec
from tfdlrm.data.unknown_ids import UnknownIds, jumps

SIZE = 5


def spec(**column) -> FeatureSpec:
    return FeatureSpec(
        labels=("click",),
        categorical=(CategoricalColumn(name="item", **column),),
        vocabulary_sizes={"item": SIZE},
    )


@given(ids=st.lists(st.integers(-3, SIZE + 3), max_size=30), policy=st.sampled_from(["oov", "clip", "modulo"]))
def test_integers_outside_of_the_table_are_unknown(ids, policy) -> None:
    unknown = UnknownIds(spec(id_policy=policy))
    for part in np.array_split(np.array(ids, np.int64), 3):
        unknown.update({"item": tf.constant(part)})
    expected = sum(not 0 <= each < SIZE for each in ids) / max(len(ids), 1)
    assert unknown.shares() == {"item": expected}


@pytest.mark.parametrize("encoding", ["vocabulary", "hex"])
@pytest.mark.parametrize("form", ["one", "fixed", "ragged", "weighted"])
def test_the_first_row_of_a_vocabulary_holds_the_unknown(encoding, form) -> None:
    ids = [0, 3, 0, 1]
    given, column = {
        "one": (tf.constant(ids), {}),
        "fixed": (tf.reshape(tf.constant(ids), (2, 2)), {"hotness": 2}),
        "ragged": (tf.RaggedTensor.from_row_lengths(ids, [0, 3, 1]), {"hotness": None}),
        "weighted": ((tf.constant(ids), tf.ones(4)), {"weights": "share"}),
    }[form]
    unknown = UnknownIds(spec(encoding=encoding, id_policy="oov", **column))
    unknown.update({"item": given})
    assert unknown.shares() == {"item": 0.5}


@pytest.mark.parametrize(
    "column",
    [
        {"id_policy": "error"},
        {"id_policy": "hash"},
        {"encoding": "hash"},
        {"encoding": "vocabulary"},
    ],
)
def test_other_columns_have_none(column) -> None:
    unknown = UnknownIds(spec(**column))
    unknown.update({"item": tf.constant([0, 1])})
    assert unknown.shares() == {}


def test_jumps_are_rises_and_the_worst_comes_first() -> None:
    now = {"a": 0.5, "b": 0.03, "c": 0.9, "d": 0.2, "e": 0.005}
    before = {"a": 0.1, "b": 0.025, "c": 0.0, "d": 0.6}
    assert list(jumps(now, before).items()) == [("c", (0.9, 0.0)), ("a", (0.5, 0.1))]
