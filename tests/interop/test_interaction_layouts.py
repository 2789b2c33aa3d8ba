"""Interaction layouts: each against its implementation's own recipe, and permutations between all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import reference as oracle
from tfdlrm.interop.interaction_layouts import column_permutation, interaction_columns

LAYOUTS = ("tfdlrm", "torchrec", "nvidia", "tfrs", "keras_rs")
WITH_DENSE = LAYOUTS[:-1]


def _output(layout: str, x: np.ndarray, e: np.ndarray, itself: bool) -> np.ndarray:
    """The interaction as each implementation computes it."""
    vectors = np.concatenate([e, x[:, None]], axis=1) if layout == "tfrs" else np.concatenate([x[:, None], e], 1)
    products = vectors @ vectors.transpose(0, 2, 1)
    if layout == "torchrec":
        pairs = products[:, *np.triu_indices(products.shape[1], 1)]
    else:
        # a lower-triangular mask picks row by row, as tf.boolean_mask does
        pairs = products[:, np.tri(products.shape[1], k=0 if itself else -1, dtype=bool)]
    parts = {"nvidia": [pairs, x], "keras_rs": [pairs]}.get(layout, [x, pairs])
    return np.concatenate(parts, axis=1)


def _inputs(features: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(features * 10 + width)
    return rng.normal(size=(3, width)), rng.normal(size=(3, features, width))


def test_ours_is_the_references() -> None:
    x, e = _inputs(4, 3)
    np.testing.assert_allclose(oracle.dot_interaction(x, e), _output("tfdlrm", x, e, False))


@given(
    source=st.sampled_from(WITH_DENSE),
    target=st.sampled_from(LAYOUTS),
    features=st.integers(1, 6),
    width=st.integers(1, 4),
    itself=st.booleans(),
)
def test_the_permutation_turns_one_output_into_the_other(
    source: str, target: str, features: int, width: int, itself: bool
) -> None:
    itself = itself and not {"torchrec", "nvidia"} & {source, target}
    x, e = _inputs(features, width)
    positions = column_permutation(source, target, features, width, interact_itself=itself)
    moved = _output(source, x, e, itself)[:, positions]
    np.testing.assert_allclose(moved, _output(target, x, e, itself), rtol=1e-12)


@given(source=st.sampled_from(WITH_DENSE), target=st.sampled_from(WITH_DENSE), features=st.integers(1, 6))
def test_there_and_back_is_the_identity(source: str, target: str, features: int) -> None:
    there = column_permutation(source, target, features, 2)
    back = column_permutation(target, source, features, 2)
    np.testing.assert_array_equal(there[back], np.arange(len(there)))


def test_a_kernel_moves_with_its_layout() -> None:
    x, e = _inputs(5, 2)
    kernel = np.random.default_rng(0).normal(size=(2 + 15, 7))
    moved = kernel[column_permutation("torchrec", "tfdlrm", 5, 2)]
    expected = _output("torchrec", x, e, False) @ kernel
    np.testing.assert_allclose(_output("tfdlrm", x, e, False) @ moved, expected)


@given(order=st.permutations(range(1, 6)))
def test_features_in_another_order(order: list[int]) -> None:
    x, e = _inputs(5, 2)
    theirs = _output("tfrs", x, e[:, [feature - 1 for feature in order]], False)
    positions = column_permutation("tfrs", "tfdlrm", 5, 2, source_order=order)
    np.testing.assert_allclose(theirs[:, positions], _output("tfdlrm", x, e, False))


def test_what_stands_where() -> None:
    assert interaction_columns("nvidia", 1, 2) == [("pair", 1, 0), ("dense", 0), ("dense", 1)]
    assert interaction_columns("tfrs", 2, 1) == [("dense", 0), ("pair", 2, 1), ("pair", 1, 0), ("pair", 2, 0)]
    assert interaction_columns("torchrec", 2, 0) == [("pair", 1, 0), ("pair", 2, 0), ("pair", 2, 1)]
    assert interaction_columns("tfdlrm", 1, 0, interact_itself=True) == [
        ("pair", 0, 0),
        ("pair", 1, 0),
        ("pair", 1, 1),
    ]


def test_requests_that_are_not_valid() -> None:
    with pytest.raises(ValueError, match=r"layout 'merlin' is unknown\. Use one of: tfdlrm, torchrec"):
        interaction_columns("merlin", 2, 2)
    with pytest.raises(ValueError, match="layout 'nvidia': interact_itself=True is not an option"):
        column_permutation("tfdlrm", "nvidia", 2, 2, interact_itself=True)
    with pytest.raises(ValueError, match=r"feature_order=\[0, 1\] is not an order of the features 1 .. 2"):
        interaction_columns("tfrs", 2, 2, feature_order=[0, 1])
    with pytest.raises(ValueError, match="layout 'keras_rs' has no dense part and 'tfdlrm' has"):
        column_permutation("keras_rs", "tfdlrm", 2, 2)
