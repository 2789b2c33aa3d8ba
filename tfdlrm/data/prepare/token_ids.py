"""From tokens to ids and a vocabulary, in memory that is bounded: the vocabulary may be larger than it.

Tokens come in chunks and leave as ids on disk. As long as the distinct tokens fit the budget they are kept in one
dictionary. Otherwise tokens are divided by a hash, and one division after another gets a dictionary of its own; a
value's place among all is then found by counting first appearances along the stream, so both ways give the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfdlrm.data.polars_extra import pl
from tfdlrm.data.prepare.dictionary import BYTES_A_VALUE, TokenDictionary
from tfdlrm.data.prepare.work import DiskArray, HeldArray, new_array
from tfdlrm.data.pyarrow_extra import pa
from tfdlrm.data.vocabulary import UNSEEN
from tfdlrm.native.columns import BeyondBudgetError

_MOST_DIVISIONS = 2**12
_NO_BUDGET = 2**62
_IDS_FILE = "ids.bin"
# Strings handed to TensorFlow at once: as Python objects they take about 60 bytes each.
_HASH_BATCH = 2**18


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Tokens of one chunk of a stream.

    Args:
        tokens: integers or strings, [n].
        counted: bool [n], which of them make the vocabulary; None for all.
    """

    tokens: pa.Array
    counted: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """All tokens of one table, readable more than once.

    Args:
        lengths: tokens of each chunk.
        read: number of a chunk to the chunk; the same each time.
        dtype: of all tokens.
    """

    lengths: Sequence[int]
    read: Callable[[int], Chunk]
    dtype: pa.DataType

    @property
    def num_tokens(self) -> int:
        """Tokens of all chunks."""
        return sum(self.lengths)


@dataclass(frozen=True, kw_only=True)
class VocabularyRules:
    """Which values get an id, and in what order.

    Args:
        min_count: rarer values get none.
        by_frequency: the most frequent first, equally frequent ones by first appearance; else all by first appearance.
        given: values that come first, in this order, whatever their count; None for none.
        closed: no other values than the given ones.
    """

    min_count: int = 1
    by_frequency: bool = False
    given: pa.Array | None = None
    closed: bool = False

    @property
    def num_given(self) -> int:
        """Values given."""
        return 0 if self.given is None else len(self.given)

    @property
    def needs_counts(self) -> bool:
        """Whether a value's place depends on how often it occurs."""
        return self.min_count > 1 or self.by_frequency


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Ids of a stream's tokens, and the values that have one.

    Args:
        ids: int32 or int64 [num_tokens]; `UNSEEN` where a token has none.
        num_values: values with an id.
        values: calls give the values in order of their ids, in pieces.
        divisions: into how many parts the values had to be divided.
        complete: certainly no token is `UNSEEN`.
    """

    ids: DiskArray | HeldArray
    num_values: int
    complete: bool
    values: Callable[[], Iterator[pa.Array]] = field(repr=False)
    divisions: int = 1


def token_ids(stream: TokenStream, rules: VocabularyRules, folder: Path | None, *, budget: int) -> TokenIds:
    """Ids for all tokens of a stream.

    Args:
        stream: the tokens.
        rules: which values get an id.
        folder: for ids and whatever does not fit; files of an earlier call are overwritten. None keeps them in memory,
            whatever the budget.
        budget: bytes a dictionary may take.

    Returns:
        The ids, in a file `ids.bin` of the folder if there is one.
    """
    if folder is None:
        budget = _NO_BUDGET
    else:
        folder.mkdir(parents=True, exist_ok=True)
    given = rules.given if rules.given is not None else pa.array([], stream.dtype)
    divisions = 1
    while True:
        try:
            if folder is None or divisions == 1:
                return _in_memory(stream, rules, given.cast(stream.dtype), folder, budget)
            return _Divided(stream, rules, given.cast(stream.dtype), folder, budget, divisions).run()
        except BeyondBudgetError:
            divisions *= 8
            if divisions > _MOST_DIVISIONS:
                raise ValueError(
                    f"--memory: {budget:,} bytes for a vocabulary are too few for {stream.num_tokens:,} tokens, even "
                    f"in {_MOST_DIVISIONS} parts. Give more."
                ) from None


def _pieces(stream: TokenStream, most: int) -> Iterator[tuple[int, list[Chunk]]]:
    """(position of the first token, chunks), of about `most` tokens."""
    start = position = 0
    chunks: list[Chunk] = []
    for number, length in enumerate(stream.lengths):
        if chunks and position + length - start > most:
            yield start, chunks
            start, chunks = position, []
        chunks.append(stream.read(number))
        position += length
    if chunks:
        yield start, chunks


def _joined(chunks: Sequence[Chunk], dtype: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    tokens = pa.concat_arrays([chunk.tokens.cast(dtype) for chunk in chunks])
    if all(chunk.counted is None for chunk in chunks):
        return tokens, None
    counted = [np.ones(len(c.tokens), bool) if c.counted is None else c.counted for c in chunks]
    return tokens, np.concatenate(counted)


def _id_dtype(most: int) -> type:
    return np.int32 if most < 2**31 else np.int64


def _in_memory(
    stream: TokenStream, rules: VocabularyRules, given: pa.Array, folder: Path | None, budget: int
) -> TokenIds:
    dictionary = TokenDictionary(given, budget, counting=rules.needs_counts)
    dtype = _id_dtype(stream.num_tokens + len(given))
    ids = new_array(folder, _IDS_FILE, stream.num_tokens, dtype)
    most = dictionary.piece_tokens
    others = rules.closed
    if not rules.closed:
        for start, chunks in _pieces(stream, most):
            tokens, counted = _joined(chunks, stream.dtype)
            if counted is None:
                ids.write(start, dictionary.add(tokens))
                continue
            others = True
            places = np.full(len(tokens), UNSEEN, ids.dtype)
            places[counted] = dictionary.add(tokens.filter(pa.array(counted)))
            ids.write(start, places)
    if others:
        for start, chunks in _pieces(stream, most):
            tokens, counted = _joined(chunks, stream.dtype)
            if rules.closed:
                ids.write(start, dictionary.find(tokens))
            elif counted is not None:
                places = ids.read(start, start + len(tokens))
                places[~counted] = dictionary.find(tokens.filter(pa.array(~counted)))
                ids.write(start, places)
    values = dictionary.values
    if rules.needs_counts:
        order = _order(dictionary.counts, rules)
        values = values.take(pa.array(order))
        new = np.full(len(dictionary) + 1, UNSEEN, ids.dtype)  # the last one stands for UNSEEN
        new[order] = np.arange(len(order))
        for start in range(0, len(ids), most):
            ids.write(start, new[ids.read(start, min(start + most, len(ids)))])
    complete = not others and rules.min_count == 1
    return TokenIds(ids=ids, num_values=len(values), complete=complete, values=lambda: iter([values]))


def _order(counts: np.ndarray, rules: VocabularyRules) -> np.ndarray:
    """Places of a dictionary in order of the ids they get."""
    rest = np.arange(rules.num_given, len(counts))
    rest = rest[counts[rest] >= rules.min_count]
    if rules.by_frequency:
        rest = rest[np.argsort(-counts[rest], kind="stable")]
    return np.concatenate([np.arange(rules.num_given), rest])


class _Divided:
    """The same where the dictionary is too large: tokens are divided by a hash of theirs.

    Positions count along the stream, after the given values, which stand before its first token.
    """

    def __init__(
        self, stream: TokenStream, rules: VocabularyRules, given: pa.Array, folder: Path, budget: int, divisions: int
    ) -> None:
        self._stream, self._rules, self._given = stream, rules, given
        self._budget, self._divisions, self._folder = budget, divisions, folder
        self._most = self._dictionary().piece_tokens
        self._size = len(given) + stream.num_tokens
        self._owner = self._scratch("owner.bin", np.uint16)
        self._place = self._scratch("place.bin", np.int32)  # within the division
        self._first = self._scratch("first.bin", np.bool_)  # here a value appears first, and it gets an id
        self._count = self._scratch("count.bin", np.int64) if rules.needs_counts else None
        self._rank = self._scratch("rank.bin", np.int64)

    def run(self) -> TokenIds:
        for start, tokens, _ in self._all():
            self._owner.write(start, _division(tokens, self._divisions))
        for division in range(self._divisions):
            self._one_dictionary(division)
        num_values = self._find_ranks()
        ids = DiskArray(self._folder / _IDS_FILE, self._stream.num_tokens, _id_dtype(num_values))
        for division in range(self._divisions):
            self._to_ids(division, ids)
        self._place.remove()
        self._owner.remove()
        return TokenIds(ids=ids, num_values=num_values, complete=False, values=self._values, divisions=self._divisions)

    def _dictionary(self) -> TokenDictionary:
        none = pa.array([], self._stream.dtype)
        return TokenDictionary(none, self._budget, counting=self._rules.needs_counts)

    def _scratch(self, name: str, dtype: np.dtype | type) -> DiskArray:
        return DiskArray(self._folder / name, self._size, dtype, window=self._most)

    def _windows(self, begin: int = 0) -> Iterator[tuple[int, int]]:
        for start in range(begin, self._size, self._most):
            yield start, min(start + self._most, self._size)

    def _all(self) -> Iterator[tuple[int, pa.Array, np.ndarray | None]]:
        if len(self._given):
            yield 0, self._given, None
        for start, chunks in _pieces(self._stream, self._most):
            tokens, counted = _joined(chunks, self._stream.dtype)
            if self._rules.closed:
                counted = np.zeros(len(tokens), bool)
            yield start + len(self._given), tokens, counted

    def _one_dictionary(self, division: int) -> None:
        dictionary = self._dictionary()
        firsts = []
        pending = False
        for start, tokens, counted in self._all():
            mine = self._owner.read(start, start + len(tokens)) == division
            if counted is not None:
                pending = pending or bool((mine & ~counted).any())
                mine &= counted
            positions = start + np.flatnonzero(mine)
            before = len(dictionary)
            places = dictionary.add(tokens.filter(pa.array(mine)))
            self._place.put(positions, places)
            highest = np.maximum.accumulate(np.concatenate([[before - 1], places]))
            firsts.append(positions[highest[1:] > highest[:-1]])
            if self._count is not None and start < len(self._given):
                dictionary.counts[:] = 0  # given values did not occur
        if pending:
            for start, tokens, counted in self._all():
                if counted is not None:
                    mine = (self._owner.read(start, start + len(tokens)) == division) & ~counted
                    places = dictionary.find(tokens.filter(pa.array(mine)))
                    self._place.put(start + np.flatnonzero(mine), places)
        first = np.concatenate(firsts) if firsts else np.zeros(0, np.int64)
        kept = np.ones(len(first), bool)
        if self._count is not None:
            kept = (dictionary.counts >= self._rules.min_count) | (first < len(self._given))
            self._count.put(first, dictionary.counts)
        self._first.put(first[kept], True)
        np.save(self._folder / f"first-{division}.npy", first)
        np.save(self._folder / f"kept-{division}.npy", kept)

    def _find_ranks(self) -> int:
        """Gives every first appearance its id, along the stream; returns how many there are."""
        total = 0
        bases = self._bases() if self._rules.by_frequency else None
        for start, stop in self._windows():
            places = np.flatnonzero(self._first.read(start, stop))
            ranks = total + np.arange(len(places))
            total += len(places)
            if bases is not None:
                ranks = self._ranks_by_count(start, stop, places, bases)
            found = np.zeros(stop - start, np.int64)
            found[places] = ranks
            self._rank.write(start, found)
        return total

    def _bases(self) -> dict[int, int]:
        """The next id of each count; given values are not among them."""
        assert self._count is not None
        tally: dict[int, int] = {}
        for start, stop in self._windows(len(self._given)):
            counts = self._count.read(start, stop)[self._first.read(start, stop)]
            for count, times in zip(*np.unique(counts, return_counts=True), strict=True):
                tally[int(count)] = tally.get(int(count), 0) + int(times)
        bases, base = {}, len(self._given)
        for count in sorted(tally, reverse=True):
            bases[count] = base
            base += tally[count]
        return bases

    def _ranks_by_count(self, start: int, stop: int, places: np.ndarray, bases: dict[int, int]) -> np.ndarray:
        assert self._count is not None
        ranks = start + places  # of given values: their own place
        chosen = np.flatnonzero(ranks >= len(self._given))
        counts = self._count.read(start, stop)[places[chosen]]
        order = np.argsort(counts, kind="stable")
        different, begin, times = np.unique(counts[order], return_index=True, return_counts=True)
        for count, first, number in zip(different.tolist(), begin.tolist(), times.tolist(), strict=True):
            ranks[chosen[order[first : first + number]]] = bases[count] + np.arange(number)
            bases[count] += number
        return ranks

    def _to_ids(self, division: int, ids: DiskArray) -> None:
        files = [self._folder / f"{name}-{division}.npy" for name in ("first", "kept")]
        first, kept = (np.load(file, allow_pickle=False) for file in files)
        new = np.full(len(first) + 1, UNSEEN, np.int64)  # the last one stands for UNSEEN
        new[:-1][kept] = self._rank.get(first[kept])
        for start, stop in self._windows(len(self._given)):
            mine = np.flatnonzero(self._owner.read(start, stop) == division)
            places = self._place.read(start, stop)[mine]
            ids.put(start - len(self._given) + mine, new[places])
        for file in files:
            file.unlink()

    def _values(self) -> Iterator[pa.Array]:
        if not self._rules.by_frequency:
            for start, tokens, _ in self._all():
                yield tokens.filter(pa.array(self._first.read(start, start + len(tokens))))
            return
        # By frequency the values of neighbouring ids stand far apart: one pass over the stream for as many as fit.
        num_values = sum(int(np.count_nonzero(self._first.read(*window))) for window in self._windows())
        step = max(1, self._budget // (2 * BYTES_A_VALUE))
        for low in range(0, num_values, step):
            ranks, found = [], []
            for start, tokens, _ in self._all():
                rank = self._rank.read(start, start + len(tokens))
                chosen = self._first.read(start, start + len(tokens)) & (rank >= low) & (rank < low + step)
                ranks.append(rank[chosen])
                found.append(tokens.filter(pa.array(chosen)))
            yield pa.concat_arrays(found).take(pa.array(np.argsort(np.concatenate(ranks))))


def _division(tokens: pa.Array, divisions: int) -> np.ndarray:
    hashed = pl.Series(tokens).hash(seed=7).to_numpy()
    return (hashed % np.uint64(divisions)).astype(np.uint16)


def hashed_texts(tokens: pl.Series, buckets: int) -> np.ndarray:
    """int64 [n] in [0, buckets), as `tfdlrm.hashing` gives them."""
    # TensorFlow is slow to import, and few columns are hashed
    import tensorflow as tf

    from tfdlrm.hashing import hash_to_buckets

    ids = np.empty(len(tokens), np.int64)
    for start in range(0, len(tokens), _HASH_BATCH):
        texts = tokens[start : start + _HASH_BATCH].to_list()
        ids[start : start + len(texts)] = hash_to_buckets(tf.constant(texts, tf.string), buckets).numpy()
    return ids
