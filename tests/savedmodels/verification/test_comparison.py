"""What counts as the same answer."""

from __future__ import annotations

import numpy as np
import pytest

from savedmodels.verification.comparison import compare


def f32(*values):
    return np.float32(values)


@pytest.mark.parametrize(
    ("recorded", "answered", "tolerance", "problem"),
    [
        ({"probability": f32(0.5)}, {"probability": f32(0.5 + 9e-7)}, {}, None),
        (
            {"probability": f32(0.5)},
            {"probability": f32(0.5 + 2e-6)},
            {},
            "output 'probability' is 2.03e-06 off at [0]",
        ),
        ({"probability": f32(0.5)}, {"probability": f32(0.509)}, {"probability": 0.01}, None),
        ({"probability": f32(0.5)}, {"probability": f32(0.511)}, {"probability": 0.01}, "is 0.011 off at [0]"),
        ({"probability": f32(0.5)}, {"probability": f32(0.51)}, {"logit": 1.0}, "is 0.01 off at [0]"),
        ({"top_probability": f32(0.5)}, {"top_probability": f32(0.509)}, {"probability": 0.01}, None),
        ({"logit": f32(100.0)}, {"logit": f32(100.0009)}, {}, None),
        ({"logit": f32(0.0)}, {"logit": f32(0.0009)}, {}, "output 'logit' is 0.0009 off at [0]: 0.0009, recorded 0;"),
        (
            {"logit": f32(1, 2, 3)},
            {"logit": f32(1, 2.5, 3)},
            {},
            "is 0.5 off at [1]: 2.5, recorded 2; 3e-05 is allowed",
        ),
        ({"logit": f32(1)}, {"logit": f32(np.nan)}, {"logit": 9.0}, "output 'logit': the answer is nan at [0]"),
        ({"logit": f32(np.inf)}, {"logit": f32(np.inf)}, {}, "output 'logit': the recorded one is inf at [0]"),
        ({"logit": f32(1)}, {"logit": np.float64([1])}, {}, "output 'logit' is float64 [1], recorded float32 [1]"),
        ({"logit": f32(1)}, {"logit": f32(1, 1)}, {}, "output 'logit' is float32 [2], recorded float32 [1]"),
        ({"logit": f32(1)}, {}, {}, "output 'logit' is missing"),
        ({}, {"logit": f32(1)}, {}, "output 'logit' was not recorded"),
        ({"logit": f32()}, {"logit": f32()}, {}, None),
        ({"ids": np.int64([2**60])}, {"ids": np.int64([2**60 + 1])}, {"ids": 5.0}, "output 'ids' is np.int64("),
        (
            {"s": np.array([b"a", b"b"], object)},
            {"s": np.array([b"a", b"c"], object)},
            {},
            "output 's' is b'c' at [1], recorded b'b': 1 of 2 differ",
        ),
    ],
)
def test_what_counts_as_the_same(recorded, answered, tolerance, problem):
    problems = compare(recorded, answered, tolerance).problems
    if problem is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert problem in problems[0]


def test_the_worst_element_is_told_by_its_share_of_what_is_allowed():
    # the greater difference is well within its own bound
    comparison = compare({"logit": f32(1000, 1)}, {"logit": f32(1000.005, 1.0000199)}, {})
    assert comparison.problems == []
    assert comparison.differences["logit"].apart == pytest.approx(1.99e-5, rel=0.02)
    assert comparison.differences["logit"].allowed == pytest.approx(2e-5, rel=1e-6)


def _ranked(probability, index, top):
    return {
        "probability": np.float32(probability),
        "top_index": np.int32(index),
        "top_probability": np.float32(top),
    }


LIVE = _ranked([[0.9], [0.5], [0.5000005], [0.1]], [0, 2], [0.9, 0.5000005])


@pytest.mark.parametrize(
    ("index", "is_same"),
    [
        ([0, 2], True),
        ([0, 1], True),  # as good as its neighbour
        ([2, 0], False),  # best first
        ([0, 0], False),  # one twice
        ([0, 3], False),
        ([0, 9], False),
        ([0, -2], False),
    ],
)
def test_candidates_as_good_as_each_other_may_change_places(index, is_same):
    problems = compare(LIVE, {**LIVE, "top_index": np.int32(index)}, {}).problems
    assert (problems == []) == is_same
    assert all("'top_" in problem for problem in problems)


def test_coarse_rows_may_change_places_further_apart():
    served = _ranked([[0.9], [0.6], [0.3], [0.1]], [0, 1], [0.9, 0.6])
    live = _ranked([[0.9], [0.4], [0.5], [0.1]], [0, 2], [0.9, 0.5])
    assert compare(live, served, {"probability": 0.25}).problems == []
    assert "output 'top_index' is np.int32(1) at [1]" in compare(live, served, {"probability": 0.01}).problems[1]


def test_of_several_tasks_the_one_that_ranked_counts():
    live = _ranked([[0.1, 0.7], [0.9, 0.7]], [0], [0.7])
    assert compare(live, {**live, "top_index": np.int32([1])}, {}).problems == []
    live = _ranked([[0.7, 0.1], [0.9, 0.7]], [0], [0.7])
    assert len(compare(live, {**live, "top_index": np.int32([1])}, {}).problems) == 1


@pytest.mark.parametrize(
    ("index", "top", "k", "problem"),
    [
        ([0, 2], [0.9, 0.6], 2, None),
        ([], [], 0, None),
        ([0, 2], [0.9, 0.6], 3, "do not have k=3 elements each, beside 'probability' [4, 1]"),
        ([0], [0.9, 0.6], None, "outputs 'top_index' [1] and 'top_probability' [2]"),
        ([0, 4], [0.9, 0.6], 2, "output 'top_index' [0, 4] is not of 4 candidates, each once"),
        ([0, -2], [0.9, 0.6], 2, "output 'top_index' [0, -2] is not of 4 candidates, each once"),
        ([0, 0], [0.9, 0.9], 2, "output 'top_index' [0, 0] is not of 4 candidates, each once"),
        ([0, 2], [0.9, 0.7], 2, "output 'top_probability' is not 'probability' at 'top_index'"),
        ([2, 0], [0.6, 0.9], 2, "is not in order, the best first"),
        ([0, 1], [0.9, 0.5], 2, "output 'top_index' leaves out a candidate of 0.6, better than its last, 0.5"),
    ],
)
def test_the_top_follows_from_the_probabilities_and_need_not_be_recorded(index, top, k, problem):
    answer = _ranked([[0.9], [0.5], [0.6], [0.1]], index, top)
    problems = compare({"probability": answer["probability"]}, answer, {}, k).problems
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]
