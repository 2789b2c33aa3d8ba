"""TokenDictionary: the distinct tokens of a stream in order of first appearance, within a budget of memory."""

from __future__ import annotations

import numpy as np

from tfdlrm.data.pyarrow_extra import pa, pc
from tfdlrm.data.vocabulary import UNSEEN
from tfdlrm.native.columns import BeyondBudgetError, new_dictionary

BYTES_A_VALUE = 48  # of Arrow's hash table, beside the value

# Tokens handled at once. Arrow hashes each piece together with all values there are, so its pieces should be long.
_NATIVE_TOKENS, _ARROW_TOKENS = 2**20, 2**24


class TokenDictionary:
    """Distinct tokens, whole numbers by native code where it may be used, others by Arrow; the places are the same.

    Args:
        given: values that come first, all different; their type is that of all tokens.
        budget: bytes it may take.
        counting: `counts` are kept.

    Raises:
        BeyondBudgetError: as `add`.
    """

    def __init__(self, given: pa.Array, budget: int, *, counting: bool) -> None:
        self._dtype, self._budget, self._counting = given.type, budget, counting
        self._counts = np.zeros(0, np.int64)
        self._values = given
        self._native = None
        if pa.types.is_integer(given.type):
            # counts take as much as the table where they grow
            own = budget // 2 if counting else budget
            self._native = new_dictionary(given.type.to_pandas_dtype(), own)
        if self._native is not None:
            self._native.add(given.to_numpy())
        self._check()

    def __len__(self) -> int:
        return len(self._values) if self._native is None else len(self._native)

    @property
    def values(self) -> pa.Array:
        """The tokens in order of their places."""
        return self._values if self._native is None else pa.array(self._native.values(), self._dtype)

    @property
    def counts(self) -> np.ndarray:
        """int64, how often each was added; given values begin at 0."""
        return self._room_for(0)[: len(self)]

    @property
    def piece_tokens(self) -> int:
        """Tokens that should be added at once."""
        return max(2**12, min(_ARROW_TOKENS if self._native is None else _NATIVE_TOKENS, self._budget // 64))

    def add(self, tokens: pa.Array) -> np.ndarray:
        """int32 [n]: places of the tokens, new ones at the end.

        Raises:
            BeyondBudgetError: they take more memory than the budget.
        """
        if self._native is not None:
            counts = self._room_for(len(tokens)) if self._counting else None
            return self._native.add(tokens.to_numpy(), counts)
        encoded = pa.concat_arrays([self._values, tokens]).dictionary_encode()
        places = encoded.indices.to_numpy()[len(self._values) :]
        self._values = encoded.dictionary
        if self._counting:
            counts = self._room_for(0)
            counts += np.bincount(places, minlength=len(counts))
        self._check()
        return places

    def find(self, tokens: pa.Array) -> np.ndarray:
        """int32 [n]: places, `UNSEEN` for tokens that are not there."""
        if self._native is not None:
            return self._native.find(tokens.to_numpy())
        if not len(self._values) or not len(tokens):
            return np.full(len(tokens), UNSEEN, np.int32)
        places = pc.index_in(tokens, value_set=self._values)
        return pc.fill_null(places, UNSEEN).to_numpy(zero_copy_only=False)

    def _room_for(self, more: int) -> np.ndarray:
        """The counts, of so many more places at least."""
        size = len(self) + more
        if size > len(self._counts):
            grown = np.zeros(max(size, 2 * len(self._counts)) if more else size, np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        return self._counts

    def _check(self) -> None:
        if self._native is None and self._values.nbytes + len(self._values) * BYTES_A_VALUE > self._budget:
            raise BeyondBudgetError
