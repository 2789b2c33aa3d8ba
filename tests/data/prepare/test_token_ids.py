"""Ids of tokens: the same from one dictionary, from many, and from plain Python."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.data.prepare import token_ids as module
from tfdlrm.data.prepare.token_ids import UNSEEN, Chunk, TokenStream, VocabularyRules, token_ids
from tfdlrm.data.prepare.work import DiskArray
from tfdlrm.native import plain

PLENTY = 2**30


def _stream(chunks: list[tuple[list, list[bool] | None]], dtype: pa.DataType) -> TokenStream:
    def read(number: int) -> Chunk:
        tokens, counted = chunks[number]
        return Chunk(tokens=pa.array(tokens, dtype), counted=None if counted is None else np.array(counted, bool))

    return TokenStream(lengths=[len(tokens) for tokens, _ in chunks], read=read, dtype=dtype)


def _oracle(chunks: list, given_values: list, rules: VocabularyRules) -> tuple[list, list[int]]:
    counts: Counter = Counter()
    if not rules.closed:
        for tokens, counted in chunks:
            counts.update(t for t, c in zip(tokens, counted or [True] * len(tokens), strict=True) if c)
    new = [value for value in counts if value not in given_values and counts[value] >= rules.min_count]
    if rules.by_frequency:
        new.sort(key=lambda value: -counts[value])
    values = [*given_values, *new]
    places = {value: place for place, value in enumerate(values)}
    return values, [places.get(token, UNSEEN) for tokens, _ in chunks for token in tokens]


def _found(stream: TokenStream, rules: VocabularyRules, budget: int) -> tuple[list, list[int], int]:
    with tempfile.TemporaryDirectory() as folder:
        found = token_ids(stream, rules, Path(folder), budget=budget)
        values = [value for piece in found.values() for value in piece.to_pylist()]
        assert len(values) == found.num_values
        ids = found.ids.read(0, len(found.ids)).tolist()
        assert not (found.complete and UNSEEN in ids)
        return values, ids, found.divisions


tokens_of = st.lists(st.integers(0, 12), max_size=30)
chunk_of = tokens_of.flatmap(
    lambda tokens: st.tuples(
        st.just(tokens), st.none() | st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))
    )
)


@given(
    chunks=st.lists(chunk_of, max_size=5),
    given_values=st.lists(st.integers(0, 15), max_size=4, unique=True),
    min_count=st.integers(1, 3),
    by_frequency=st.booleans(),
    closed=st.booleans(),
    text=st.booleans(),
    divisions=st.sampled_from([1, 8]),
    native=st.booleans(),
)
def test_any_stream(
    chunks: list,
    given_values: list,
    min_count: int,
    by_frequency: bool,
    closed: bool,
    text: bool,
    divisions: int,
    native: bool,
) -> None:
    closed = closed and bool(given_values)
    dtype = pa.large_string() if text else pa.uint32()
    if text:
        chunks = [([f"v{token}" for token in tokens], counted) for tokens, counted in chunks]
        given_values = [f"v{value}" for value in given_values]
    rules = VocabularyRules(
        min_count=min_count,
        by_frequency=by_frequency,
        given=pa.array(given_values, dtype) if given_values else None,
        closed=closed,
    )
    stream = _stream(chunks, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if not native:
            patch.setattr(plain, "functions", lambda: None)
        if divisions == 1:
            values, ids, _ = _found(stream, rules, PLENTY)
        else:
            with tempfile.TemporaryDirectory() as folder:
                given_array = rules.given if rules.given is not None else pa.array([], dtype)
                found = module._Divided(stream, rules, given_array, Path(folder), PLENTY, divisions).run()
                values = [value for piece in found.values() for value in piece.to_pylist()]
                ids = found.ids.read(0, len(found.ids)).tolist()
    assert (values, ids) == _oracle(chunks, given_values, rules)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("by_frequency", [False, True])
def test_a_vocabulary_beyond_its_budget_is_divided(
    by_frequency: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(plain, "functions", lambda: None)
    random = np.random.default_rng(0)
    chunks = [(random.integers(0, 40_000, 9_000).tolist(), None) for _ in range(6)]
    rules = VocabularyRules(by_frequency=by_frequency)
    values, ids, divisions = _found(_stream(chunks, pa.uint32()), rules, 2**19)
    assert divisions == 8
    assert (values, ids) == _oracle(chunks, [], rules)
    assert _found(_stream(chunks, pa.uint32()), rules, PLENTY)[2] == 1


def test_a_budget_that_nothing_fits() -> None:
    chunks = [(list(range(100_000)), None)]
    with pytest.raises(ValueError, match=r"--memory: 100 bytes for a vocabulary are too few for 100,000 tokens"):
        _found(_stream(chunks, pa.uint32()), VocabularyRules(), 100)


def test_a_disk_array(tmp_path: Path) -> None:
    array = DiskArray(tmp_path / "x.bin", 1000, np.int32, window=64)
    expected = np.zeros(1000, np.int32)
    random = np.random.default_rng(0)
    for _ in range(20):
        places = np.unique(random.integers(0, 1000, 50))
        values = random.integers(0, 9, len(places))
        array.put(places, values)
        expected[places] = values
        start = int(random.integers(0, 900))
        array.write(start, np.arange(5))
        expected[start : start + 5] = np.arange(5)
        np.testing.assert_array_equal(array.get(places), expected[places])
    np.testing.assert_array_equal(array.read(0, 1000), expected)
    again = DiskArray(tmp_path / "x.bin", 1000, np.int32, keep=True)
    np.testing.assert_array_equal(again.read(100, 900), expected[100:900])
    again.remove()
    (tmp_path / "x.bin").write_bytes(b"1234")
    with pytest.raises(OSError, match="ends early"):
        DiskArray(tmp_path / "x.bin", 1000, np.int32, keep=True).read(0, 10)
