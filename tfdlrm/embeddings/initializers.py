"""Initial values of embedding rows, computed block by block.

A table's rows are generated in blocks of `BLOCK_ROWS`; block k depends only on the table's seed and on k.
Whatever slices a placement cuts the table into, row i therefore starts with the same value, and building a
table never needs more memory than the table plus one block.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tfdlrm.checks import quoted
from tfdlrm.schema import reject_unknown_keys

if TYPE_CHECKING:
    import tensorflow as tf

BLOCK_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Base of the row initializers: a pure function of (table seed, vocabulary size, block number)."""

    name: ClassVar[str] = ""

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        """Rows `[block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)` as `[BLOCK_ROWS, embedding_dim]` float32."""
        raise TypeError(f"{type(self).__name__} does not define block()")

    def _seeds(self, seed: int, block: int | tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.stack([tf.constant(seed, tf.int64), tf.cast(block, tf.int64)])


@dataclasses.dataclass(frozen=True)
class ScaledUniform(Initializer):
    """U(-sqrt(1/V), +sqrt(1/V)) for a table of V rows: the reference's initial values (NUMERICS: initial values)."""

    name: ClassVar[str] = "scaled_uniform"

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        bound = math.sqrt(1.0 / vocabulary_size)
        return Uniform(low=-bound, high=bound).block(seed, block, vocabulary_size, embedding_dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Initializer):
    """U(low, high)."""

    low: float = -0.05
    high: float = 0.05
    name: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"Uniform: low={self.low} is above high={self.high}. Swap them.")

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        import tensorflow as tf

        del vocabulary_size
        shape = [BLOCK_ROWS, embedding_dim]
        return tf.random.stateless_uniform(shape, self._seeds(seed, block), self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normal(Initializer):
    """N(mean, stddev), not truncated."""

    mean: float = 0.0
    stddev: float = 0.05
    name: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        if self.stddev < 0:
            raise ValueError(f"Normal: stddev={self.stddev} is negative. Give 0 or more.")

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        import tensorflow as tf

        del vocabulary_size
        shape = [BLOCK_ROWS, embedding_dim]
        return tf.random.stateless_normal(shape, self._seeds(seed, block), self.mean, self.stddev)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedNormal(Normal):
    """N(mean, stddev), values beyond two standard deviations drawn again: the default of TPUEmbedding's tables."""

    name: ClassVar[str] = "truncated_normal"

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        import tensorflow as tf

        del vocabulary_size
        shape = [BLOCK_ROWS, embedding_dim]
        return tf.random.stateless_truncated_normal(shape, self._seeds(seed, block), self.mean, self.stddev)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Initializer):
    """Every value the same."""

    value: float = 0.0
    name: ClassVar[str] = "constant"

    def block(self, seed: int, block: int | tf.Tensor, vocabulary_size: int, embedding_dim: int) -> tf.Tensor:
        import tensorflow as tf

        del seed, block, vocabulary_size
        return tf.fill([BLOCK_ROWS, embedding_dim], tf.constant(self.value, tf.float32))


_INITIALIZERS: tuple[type[Initializer], ...] = (ScaledUniform, Uniform, Normal, TruncatedNormal, Constant)


def initializer_to_dict(initializer: Initializer) -> dict[str, Any]:
    """`{"name": ..., <fields>}`, the form used in YAML and in layer configs."""
    return {"name": initializer.name, **dataclasses.asdict(initializer)}


def initializer_from_dict(config: Mapping[str, Any] | str) -> Initializer:
    """Inverse of `initializer_to_dict`; a bare name takes the defaults.

    Raises:
        ValueError: unknown name or unknown field, with the nearest valid one named.
    """
    fields = {"name": config} if isinstance(config, str) else dict(config)
    name = fields.pop("name", None)
    classes = {cls.name: cls for cls in _INITIALIZERS}
    if name not in classes:
        raise ValueError(f"initializer: unknown name {quoted(name)}. Choose one of {sorted(classes)}.")
    reject_unknown_keys(f"initializer {quoted(name)}", fields, [f.name for f in dataclasses.fields(classes[name])])
    return classes[name](**fields)


def table_seed(seed: int, table_name: str) -> int:
    """A stable 63-bit seed for one table, so that tables of one model differ and stay the same between runs."""
    digest = hashlib.blake2b(f"{seed}/{table_name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def initial_rows(
    initializer: Initializer, seed: int, vocabulary_size: int, embedding_dim: int, start: int, stop: int
) -> tf.Tensor:
    """Initial values of rows `[start, stop)`; meant to be called block by block.

    Args:
        initializer: what to draw.
        seed: the table's own seed, from `table_seed`.
        vocabulary_size: V, rows of the whole table.
        embedding_dim: D.
        start, stop: the slice, 0 <= start <= stop <= V.

    Returns:
        `[stop - start, D]` float32.
    """
    import tensorflow as tf

    pieces = []
    for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
        first = block * BLOCK_ROWS
        rows = initializer.block(seed, block, vocabulary_size, embedding_dim)
        pieces.append(rows[max(start - first, 0) : min(stop - first, BLOCK_ROWS)])
    if not pieces:
        return tf.zeros([0, embedding_dim], tf.float32)
    return pieces[0] if len(pieces) == 1 else tf.concat(pieces, axis=0)
