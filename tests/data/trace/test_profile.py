"""Stack distances and profiles: the literal algorithm's numbers, bit for bit, and its files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.trace import reference_trace
from tfdlrm.data.trace import TraceProfile, load_ids, lru_order, profile_trace, save_ids, stack_distances
from tfdlrm.data.trace.profile import count_smaller_before, previous_accesses

TRACES = st.lists(st.integers(0, 12), min_size=1, max_size=60) | st.lists(
    st.integers(0, 2**62), min_size=1, max_size=20
)


@pytest.mark.parametrize(
    ("trace", "distances"),
    [
        ([4], [0]),
        ([4, 4, 4], [0, 1, 1]),
        ([1, 2, 3], [0, 0, 0]),
        ([1, 2, 3, 1, 2, 3], [0, 0, 0, 3, 3, 3]),
        ([1, 2, 3, 3, 2, 1], [0, 0, 0, 1, 2, 3]),
        ([1, 2, 1, 3, 1, 2, 2, 1], [0, 0, 2, 0, 2, 3, 1, 2]),
        ([9, 0, 9, 9, 0, 5, 0, 9, 5], [0, 0, 2, 1, 2, 0, 2, 3, 3]),
    ],
)
def test_distances_by_hand(trace: list[int], distances: list[int]) -> None:
    assert stack_distances(np.array(trace)).tolist() == distances
    assert reference_trace.profile(trace)[1] == distances


def test_a_profile_by_hand() -> None:
    profile = profile_trace(np.array([9, 0, 9, 9, 0, 5, 0, 9, 5]))
    assert profile.lines.tolist() == [9, 0, 5]
    assert profile.distances.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(profile.cumulative, [3 / 9, 4 / 9, 7 / 9, 1])
    assert lru_order(np.array([9, 0, 9, 9, 0, 5, 0, 9, 5])).tolist() == [0, 9, 5]
    padded = profile_trace(np.array([9, 0, 9, 9, 0, 5, 0, 9, 5]), padding=True)
    np.testing.assert_allclose(padded.cumulative, [6 / 12, 7 / 12, 10 / 12, 1])
    assert profile_trace(np.array([16, 17, 40]), line_size=8).lines.tolist() == [2, 5]


@given(TRACES, st.booleans())
def test_the_literal_algorithm(trace: list[int], padding: bool) -> None:
    stack, distances, first = reference_trace.profile(trace)
    ids = np.array(trace)
    assert stack_distances(ids).tolist() == distances
    assert lru_order(ids).tolist() == stack
    padding = padding and max(distances) > 0  # the literal one divides by it
    values, cumulative = reference_trace.distribution(distances, padding)
    profile = profile_trace(ids, padding=padding)
    assert profile.lines.tolist() == first
    assert profile.distances.tolist() == values
    assert profile.cumulative.tolist() == cumulative


@pytest.mark.parametrize("num_ids", [127, 128, 129, 1000, 4000])
@pytest.mark.parametrize("num_different", [3, 300, 3000])
def test_longer_traces(num_ids: int, num_different: int) -> None:
    """Beyond the groups that are compared directly."""
    ids = np.random.default_rng(num_ids).zipf(1.2, num_ids) % num_different
    _, distances, _ = reference_trace.profile(ids.tolist())
    np.testing.assert_array_equal(stack_distances(ids), distances)


@given(st.integers(0, 700), st.integers(0, 5))
def test_counting_smaller_items(num_items: int, seed: int) -> None:
    ranks = np.random.default_rng(seed).permutation(num_items)
    expected = [int((ranks[:place] < rank).sum()) for place, rank in enumerate(ranks)]
    assert count_smaller_before(ranks).tolist() == expected


def test_previous_accesses_of_huge_ids() -> None:
    """Id and place do not fit one number."""
    ids = np.array([2**62, 3, 2**62, 2**62 - 1, 3, 2**62])
    assert previous_accesses(ids).tolist() == [-1, -1, 0, -1, 1, 2]


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.uint8])
def test_integer_dtypes(dtype: type) -> None:
    assert stack_distances(np.array([1, 2, 1], dtype)).tolist() == [0, 0, 2]
    assert profile_trace(np.array([1, 2, 1], dtype)).lines.dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([1.5]), "dtype float64 and shape (1,)"),
        (np.array([[1]]), "shape (1, 1)"),
        (np.array([3, -1]), "ids from -1 to 3"),
        (np.array([2**63], np.uint64), "Give ids in [0, 2**63)"),
        (np.array([], np.int64), "the trace is empty"),
    ],
)
def test_what_is_no_trace_is_refused(ids: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        profile_trace(ids)
    with pytest.raises(ValueError, match="line_size=0 is too small"):
        profile_trace(np.array([1]), line_size=0)


@pytest.mark.parametrize("name", ["profile.npz", "profile.txt"])
def test_profiles_are_saved_exactly(tmp_path: Path, name: str) -> None:
    profile = profile_trace(np.random.default_rng(0).zipf(1.3, 5000) % 1000)
    profile.save(tmp_path / name)
    loaded = TraceProfile.load(tmp_path / name)
    for array in ("lines", "distances", "cumulative"):
        np.testing.assert_array_equal(getattr(loaded, array), getattr(profile, array))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_the_references_text(tmp_path: Path) -> None:
    """Three lines: the ids, the distances, the fractions."""
    file = tmp_path / "dist.log"
    profile_trace(np.array([5, 5, 7, 8])).save(file)
    assert file.read_text() == "5, 7, 8\n0, 1\n0.75, 1.0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 2\n0, 1\n", "2 lines of text"),
        ("1, 2\n0, x\n0.5, 1\n", "something that is no number"),
        ("1, 2\n0, 1\n0.5\n", "2 lines, 2 distances and 1 cumulative"),
        ("1, 2\n1, 2\n0.5, 1\n", "distances from 1 to 2"),
        ("1, 2\n0, 3\n0.5, 1\n", "must begin with 0"),
        ("1, 2\n0, 1\n0.5, 0.9\n", "cumulative fractions from 0.5 to 0.9"),
        ("1, 2\n0, 1\n0.0, 1.0\n", "must be above 0"),
        ("\n0\n1\n", "0 lines"),
    ],
)
def test_damaged_profiles_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "dist.log"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"dist\.log: .*{re.escape(message)}"):
        TraceProfile.load(file)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: no array 'lines'"):
        TraceProfile.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="a profile is expected"):
        TraceProfile.load(tmp_path / "none.npz")


@pytest.mark.parametrize("name", ["ids.npy", "ids.bin", "ids.txt"])
def test_ids_are_saved_exactly(tmp_path: Path, name: str) -> None:
    ids = np.array([3, 0, 2**62 + 1, 3])
    save_ids(tmp_path / name, ids)
    np.testing.assert_array_equal(load_ids(tmp_path / name), ids)


def test_text_of_ids(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    save_ids(file, np.array([3, 1]))
    assert file.read_text() == "3, 1"
    for text in ("3, 1", "3\n1\n", "3 1", " 3,1\n"):
        file.write_text(text)
        assert load_ids(file).tolist() == [3, 1]
    for text, message in (("3, one", "no number"), ("", "empty"), ("3 1.5", "no number"), ("3 -1", "from -1 to 3")):
        file.write_text(text)
        with pytest.raises(ValueError, match=rf"ids\.txt: .*{message}"):
            load_ids(file)
    with pytest.raises(FileNotFoundError, match="a trace is expected"):
        load_ids(tmp_path / "none.txt")
