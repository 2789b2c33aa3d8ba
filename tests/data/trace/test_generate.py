"""Generated traces: the literal generators' very ids, and the distances of the profile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.data.trace import reference_trace
from tfdlrm.data.trace import TraceProfile, generate_lru, generate_rand, profile_trace, stack_distances
from tfdlrm.data.trace import generate as generate_module
from tfdlrm.data.trace.generate import removed_items

LEVEL = 0.001  # of each statistical test; seeds are fixed, so that a pass stays one


def _literal(profile: TraceProfile, num_ids: int, *, seed: int, padding: bool, moves: bool) -> list[int]:
    return reference_trace.generate(
        profile.lines.tolist(),
        profile.distances.tolist(),
        profile.cumulative.tolist(),
        num_ids,
        seed=seed,
        padding=padding,
        moves=moves,
    )


@given(
    st.lists(st.integers(0, 15), min_size=1, max_size=40),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
)
def test_the_literal_generators(trace: list[int], num_ids: int, seed: int, padding: bool, moves: bool) -> None:
    profile = profile_trace(np.array(trace))
    generate = generate_lru if moves else generate_rand
    expected = _literal(profile, num_ids, seed=seed, padding=padding, moves=moves)
    assert generate(profile, num_ids, seed=seed, padding=padding).tolist() == expected


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("moves", [False, True])
def test_longer_traces(monkeypatch: pytest.MonkeyPatch, padding: bool, moves: bool) -> None:
    """Many blocks of steps, of which each begins with the list the last one left."""
    monkeypatch.setattr(generate_module, "_LIST_STEPS", 512)
    monkeypatch.setattr(generate_module, "_MAX_LIST_STEPS", 512)
    ids = np.random.default_rng(1).zipf(1.15, 4000) % 1500
    profile = profile_trace(ids, padding=padding)
    generate = generate_lru if moves else generate_rand
    expected = _literal(profile, 6000, seed=3, padding=padding, moves=moves)
    assert generate(profile, 6000, seed=3, padding=padding).tolist() == expected


@given(st.lists(st.integers(0, 40), max_size=400))
def test_removing_items(picks: list[int]) -> None:
    there = list(range(500))
    assert removed_items(np.array(picks, np.int64)).tolist() == [there.pop(pick) for pick in picks]


def test_removing_many_items() -> None:
    picks = np.random.default_rng(0).integers(0, 900, 3000)
    there = list(range(4000))
    assert removed_items(picks).tolist() == [there.pop(pick) for pick in picks]


@pytest.mark.parametrize("exponent", [1.05, 1.3])
def test_distances_match_the_profile(exponent: float) -> None:
    """Chi-square and Kolmogorov-Smirnov at level 0.001.

    Once all ids were taken, steps are independent draws of the profile's distances, where a first access (0) takes the
    id that was not seen for the longest time: the distance is then the number of ids.
    """
    trace = np.random.default_rng(7).zipf(exponent, 60_000) % 2_000
    profile = profile_trace(trace)
    generated = generate_lru(profile, 400_000, seed=11)
    distances = stack_distances(generated)
    start = int(np.flatnonzero(distances == 0)[-1]) + 1
    assert len(np.unique(generated[:start])) == len(profile.lines)
    found = distances[start:]
    assert len(found) > 100_000
    fractions = np.diff(profile.cumulative, prepend=0.0)
    expected = np.zeros(len(profile.lines) + 1)
    expected[profile.distances] = fractions
    expected[len(profile.lines)] += expected[0]
    expected[0] = 0.0
    counts = np.bincount(found, minlength=len(expected))
    assert (counts[expected == 0] == 0).all()
    # neighbours together until each group is expected to have 50
    groups = (np.cumsum(expected) * len(found) / 50).astype(int)
    _, groups = np.unique(groups, return_inverse=True)
    in_groups = np.bincount(groups, counts)
    expected_in_groups = np.bincount(groups, expected) * len(found)
    full = expected_in_groups > 5
    statistic = ((in_groups - expected_in_groups)[full] ** 2 / expected_in_groups[full]).sum()
    assert stats.chi2.sf(statistic, full.sum() - 1) > LEVEL
    # the bound of the continuous case holds for a discrete one, too
    largest = np.abs(np.cumsum(counts) / len(found) - np.cumsum(expected)).max()
    assert stats.kstwobign.sf(largest * np.sqrt(len(found))) > LEVEL


def test_the_beginning_of_a_trace_is_denser() -> None:
    """The reference's bound on distances: a trace as long as the original is all beginning, a longer one is near it."""
    trace = np.random.default_rng(2).zipf(1.2, 20_000) % 200
    profile = profile_trace(trace)
    at = np.arange(0, 200)
    differences = []
    for num_ids in (20_000, 1_000_000):
        again = profile_trace(generate_lru(profile, num_ids, seed=5))
        one, other = (each.cumulative[np.searchsorted(each.distances, at, "right") - 1] for each in (profile, again))
        differences.append(np.abs(one - other).max())
    assert differences[0] > 0.05
    assert differences[1] < 0.02


def test_a_trace_without_repeats() -> None:
    profile = profile_trace(np.array([3, 1, 2]))
    assert generate_lru(profile, 5).tolist() == [3, 1, 2, 3, 1]
    assert generate_rand(profile, 5).tolist() == [3, 1, 2, 3, 1]


def test_seeds() -> None:
    profile = profile_trace(np.random.default_rng(0).integers(0, 50, 500))
    assert (generate_lru(profile, 100, seed=1) == generate_lru(profile, 100, seed=1)).all()
    assert (generate_lru(profile, 100, seed=1) != generate_lru(profile, 100, seed=2)).any()
    with pytest.raises(ValueError, match="num_ids=0 is too small"):
        generate_lru(profile, 0)
    with pytest.raises(ValueError, match="seed=-1 is out of range"):
        generate_rand(profile, 5, seed=-1)
