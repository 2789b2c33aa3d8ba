"""The reference's own numbers on a tiny trace.

They come from running `trace_profile`, `trace_generate_lru` and `trace_generate_rand` of facebookresearch/dlrm's
dlrm_data_pytorch.py, its results turned round as its main program does, with NumPy's legacy generator at seed 7. With
padding its profile adds a list to a deque, which Python refuses; the list was made a deque for that one.
"""

from __future__ import annotations

import numpy as np
import pytest

from tfdlrm.data.trace import generate_lru, generate_rand, lru_order, profile_trace, stack_distances

TRACE = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4])
DISTANCES = [0, 0, 0, 2, 0, 0, 0, 0, 4, 7, 2, 0, 6, 0, 2, 5, 7, 2, 5, 9, 8, 5, 2, 3]
STACK = [1, 5, 7, 9, 3, 8, 2, 6, 4]
LINES = [3, 1, 4, 5, 9, 2, 6, 8, 7]
DIFFERENT = [0, 2, 3, 4, 5, 6, 7, 8, 9]
# by padding
CUMULATIVE = {
    False: [
        *(0.375, 0.5833333333333334, 0.625, 0.6666666666666666, 0.7916666666666666, 0.8333333333333333),
        *(0.9166666666666666, 0.9583333333333333, 0.9999999999999999),
    ],
    True: [
        *(0.4444444444444444, 0.6296296296296295, 0.6666666666666665, 0.7037037037037035, 0.8148148148148147),
        *(0.8518518518518516, 0.9259259259259257, 0.9629629629629628, 0.9999999999999998),
    ],
}
LRU = {
    False: "3141359262938746162563934846967616287573",
    True: "3141359262638781835374782831424823857525",
}
RAND = {
    False: "3141359262948735135439546953352962815783",
    True: "3141359262248781821893891894598969644898",
}


def test_distances() -> None:
    assert stack_distances(TRACE).tolist() == DISTANCES
    assert lru_order(TRACE).tolist() == STACK


@pytest.mark.parametrize("padding", [False, True])
def test_profile_and_generated_traces(padding: bool) -> None:
    profile = profile_trace(TRACE, padding=padding)
    assert profile.lines.tolist() == LINES
    assert profile.distances.tolist() == DIFFERENT
    assert profile.cumulative.tolist() == CUMULATIVE[padding]
    assert "".join(map(str, generate_lru(profile, 40, seed=7, padding=padding))) == LRU[padding]
    assert "".join(map(str, generate_rand(profile, 40, seed=7, padding=padding))) == RAND[padding]
