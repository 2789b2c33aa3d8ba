"""What an embedding table is and which feature reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.embeddings.initializers import (
    Initializer,
    ScaledUniform,
    initializer_from_dict,
    initializer_to_dict,
)
from tfdlrm.embeddings.optimizers import RowOptimizer, row_optimizer_from_dict, row_optimizer_to_dict
from tfdlrm.records import Reader, Record, optional, to_plain
from tfdlrm.schema import IdPolicy

Combiner = Literal["sum", "mean", "sqrtn"]
PoolingWeights = Literal["fixed", "learned"]
RowDtype = Literal["float32", "bfloat16", "float16", "int8"]
QuotientRemainderOperation = Literal["mult", "add", "concat"]
QuotientRemainderInitializer = Literal["paper", "reference"]

REFERENCE_THRESHOLD = 200  # rows; tables up to this size stay whole (facebookresearch/dlrm, --qr-threshold)


def read_initializer(value: Any) -> Any:
    """An initializer from its name or plain dict; objects pass."""
    return initializer_from_dict(value) if isinstance(value, (str, Mapping)) else value


def read_row_optimizer(value: Any) -> Any:
    """A row optimizer from its name or plain dict; objects pass."""
    if isinstance(value, str):
        value = {"name": value}
    return row_optimizer_from_dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, kw_only=True)
class QuotientRemainderConfig(Record):
    """Two small tables in place of a large one (Shi et al. 2020, "Compositional Embeddings").

    Row n is found as q = n // collisions and r = n mod collisions, in tables of ceil(V / collisions) and
    `collisions` rows.

    Args:
        collisions: c, rows of the remainder table.
        operation: how the two pooled vectors are combined. `concat` stores half of `embedding_dim` in each.
        threshold: rows; only tables with V > threshold are split.
        initializer: `paper` is U(-sqrt(1/V), sqrt(1/V)); `reference` is U(sqrt(1/V), 1), what the reference
            implementation does.
    """

    collisions: int = 4
    operation: QuotientRemainderOperation = "mult"
    threshold: int = REFERENCE_THRESHOLD
    initializer: QuotientRemainderInitializer = "paper"

    def __post_init__(self) -> None:
        owner = "QuotientRemainderConfig"
        self._set(
            collisions=checks.check_integer(owner, "collisions", self.collisions, minimum=1),
            threshold=checks.check_integer(owner, "threshold", self.threshold, minimum=0),
        )
        checks.check_choice(owner, "operation", self.operation, get_args(QuotientRemainderOperation))
        checks.check_choice(owner, "initializer", self.initializer, get_args(QuotientRemainderInitializer))


@dataclass(frozen=True, kw_only=True)
class MixedDimensionConfig(Record):
    """Narrower vectors for larger tables (Ginart et al. 2019, "Mixed Dimension Embeddings").

    Table i of n_i rows, sorted ascending, gets d_i = max(1, d_0 (n_i / n_0)^-alpha) and a bias-free
    projection to the common width.

    Args:
        alpha: temperature; 0 leaves every table at d_0.
        round_to_power_of_two: round each d_i to a power of two.
        threshold: rows; tables with V <= threshold keep the common width.
    """

    alpha: float = 0.3
    round_to_power_of_two: bool = True
    threshold: int = REFERENCE_THRESHOLD

    def __post_init__(self) -> None:
        owner = "MixedDimensionConfig"
        self._set(
            alpha=checks.check_number(owner, "alpha", self.alpha, minimum=0.0),
            threshold=checks.check_integer(owner, "threshold", self.threshold, minimum=0),
        )
        checks.check_flag(owner, "round_to_power_of_two", self.round_to_power_of_two)


@dataclass(frozen=True, kw_only=True)
class TableConfig(Record):
    """One embedding table.

    Args:
        name: table name.
        vocabulary_size: V, rows.
        embedding_dim: D, width of the vector that leaves the lookup. With quotient-remainder `concat` the two
            stored tables have D / 2 columns each.
        combiner: how a bag's rows become one vector: `sum`, `mean` (divided by the sum of the weights) or
            `sqrtn` (divided by the root of the sum of the squared weights).
        initializer: initial rows.
        optimizer: the row optimizer; None for the collection's.
        quotient_remainder: store the table, if V is above its threshold, as quotient and remainder tables;
            None stores it whole.
        output_dim: mixed dimension: width after a bias-free projection of D; None for no projection.
        pooling_weights: one weight per table row, `fixed` or `learned`, initially 1; None for none.
        trainable: whether training updates the rows.
        row_dtype: how rows are stored. `bfloat16` and `float16` take half the memory and are updated with stochastic
            rounding; `int8` takes a quarter and is for inference: the table cannot be trainable. Slots stay float32.

    Raises:
        ValueError: a value is not valid; the message names the table.

    Example:
        >>> TableConfig(name="item", vocabulary_size=1000, embedding_dim=16).output_width
        16
    """

    name: str
    vocabulary_size: int
    embedding_dim: int
    combiner: Combiner = "sum"
    initializer: Initializer = field(default_factory=ScaledUniform)
    optimizer: RowOptimizer | None = None
    quotient_remainder: QuotientRemainderConfig | None = None
    output_dim: int | None = None
    pooling_weights: PoolingWeights | None = None
    trainable: bool = True
    row_dtype: RowDtype = "float32"

    readers: ClassVar[Mapping[str, Reader]] = {
        "initializer": read_initializer,
        "optimizer": read_row_optimizer,
        "quotient_remainder": optional(QuotientRemainderConfig.from_dict),
    }
    writers: ClassVar[Mapping[str, Reader]] = {
        "initializer": initializer_to_dict,
        "optimizer": optional(row_optimizer_to_dict),
    }

    def __post_init__(self) -> None:
        checks.check_name("TableConfig", "name", self.name)
        owner = f"table {quoted(self.name)}"
        positive = checks.check_integer
        self._set(
            vocabulary_size=positive(owner, "vocabulary_size", self.vocabulary_size, minimum=1),
            embedding_dim=positive(owner, "embedding_dim", self.embedding_dim, minimum=1),
            output_dim=checks.check_optional(positive, owner, "output_dim", self.output_dim, minimum=1),
        )
        checks.check_choice(owner, "combiner", self.combiner, get_args(Combiner))
        checks.check_instance(owner, "initializer", self.initializer, Initializer)
        checks.check_optional(checks.check_instance, owner, "optimizer", self.optimizer, kind=RowOptimizer)
        if self.pooling_weights is not None:
            checks.check_choice(owner, "pooling_weights", self.pooling_weights, get_args(PoolingWeights))
        checks.check_flag(owner, "trainable", self.trainable)
        checks.check_choice(owner, "row_dtype", self.row_dtype, get_args(RowDtype))
        if self.row_dtype == "int8" and self.trainable:
            raise ValueError(
                f"{owner}: row_dtype='int8' is for inference and the table is trainable. Set trainable to false, or "
                "train with bfloat16 or float16 rows."
            )
        checks.check_optional(
            checks.check_instance, owner, "quotient_remainder", self.quotient_remainder, kind=QuotientRemainderConfig
        )
        if self.split is not None:
            self._check_split(owner, self.split)

    def _check_split(self, owner: str, split: QuotientRemainderConfig) -> None:
        if split.operation == "concat" and self.embedding_dim % 2:
            raise ValueError(
                f"{owner}: embedding_dim={self.embedding_dim} is odd, and quotient-remainder 'concat' stores "
                "half of it in each of two tables. Give an even embedding_dim, or operation: mult."
            )
        if self.output_dim is not None:
            raise ValueError(
                f"{owner}: quotient_remainder and output_dim={self.output_dim} (mixed dimension) are both "
                "given. Remove one."
            )
        if self.pooling_weights is not None:
            raise ValueError(
                f"{owner}: quotient_remainder and pooling_weights={quoted(self.pooling_weights)} are both given; "
                "quotient and remainder tables have no row per id to weight. Remove one."
            )

    @property
    def split(self) -> QuotientRemainderConfig | None:
        """How the table is stored as quotient and remainder tables; None where it is whole: up to the threshold."""
        options = self.quotient_remainder
        return options if options is not None and self.vocabulary_size > options.threshold else None

    @property
    def is_split(self) -> bool:
        """Whether the table is stored as quotient and remainder tables."""
        return self.split is not None

    @property
    def stored_dim(self) -> int:
        """Columns of each stored array: half of `embedding_dim` where the two parts are concatenated."""
        if self.split is not None and self.split.operation == "concat":
            return self.embedding_dim // 2
        return self.embedding_dim

    @property
    def output_width(self) -> int:
        """Width of the pooled vector that leaves the table, after the projection if there is one."""
        return self.embedding_dim if self.output_dim is None else self.output_dim


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(Record):
    """One categorical input and the table that it reads.

    Args:
        name: input name.
        table: the table, or its name; "" for the table of the feature's own name.
        hotness: H, ids a bag; None where it varies (ragged).
        id_policy: what happens to an id outside [0, V); see `tfdlrm.schema.CategoricalColumn`.

    Example:
        >>> item = TableConfig(name="item", vocabulary_size=1000, embedding_dim=16)
        >>> FeatureConfig(name="clicked", table=item, hotness=None).table_name
        'item'
    """

    name: str
    table: TableConfig | str = ""
    hotness: int | None = 1
    id_policy: IdPolicy = "error"

    readers: ClassVar[Mapping[str, Reader]] = {
        "table": lambda value: TableConfig.from_dict(value) if isinstance(value, Mapping) else value
    }
    writers: ClassVar[Mapping[str, Reader]] = {"table": to_plain}

    def __post_init__(self) -> None:
        checks.check_name("FeatureConfig", "name", self.name)
        owner = f"feature {quoted(self.name)}"
        if not isinstance(self.table, TableConfig):
            if not isinstance(self.table, str):
                raise ValueError(
                    f"{owner}: table={quoted(self.table)} is a {type(self.table).__name__}. Give "
                    "a TableConfig or its name."
                )
            self._set(table=checks.check_name(owner, "table", self.table or self.name))
        self._set(hotness=checks.check_optional(checks.check_integer, owner, "hotness", self.hotness, minimum=1))
        checks.check_choice(owner, "id_policy", self.id_policy, get_args(IdPolicy))

    @property
    def table_name(self) -> str:
        """Name of the table, whichever form `table` has."""
        return self.table if isinstance(self.table, str) else self.table.name
