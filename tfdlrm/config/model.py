"""DLRMConfig: everything a DLRM or DLRM-DCNv2 is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.config.tables import (
    Combiner,
    FeatureConfig,
    MixedDimensionConfig,
    PoolingWeights,
    QuotientRemainderConfig,
    RowDtype,
    TableConfig,
)
from tfdlrm.records import Reader, Record, each, optional
from tfdlrm.schema import FeatureSpec

Architecture = Literal["dlrm", "dcnv2"]
Interaction = Literal["dot", "cat"]
Normalization = Literal["batch", "layer"]


@dataclass(frozen=True, kw_only=True)
class DLRMConfig(Record):
    """A model: bottom MLP, tables, interaction, top MLP (Naumov et al. 2019; Wang et al. 2021 for dcnv2).

    Args:
        architecture: `dlrm` (dot or cat interaction) or `dcnv2` (low-rank cross layers).
        num_dense: width of the dense vector; 0 for none, and then there is no bottom MLP.
        tables: the embedding tables; () until they come from the data (`with_schema`).
        features: categorical inputs in order, each with the name of its table; () for a model of numbers alone.
        embedding_dim: D, the common width of the bottom MLP's output and of every pooled vector.
        bottom_mlp: widths; the last is D. Not needed without a dense vector.
        top_mlp: widths; the last is 1.
        interaction: `dot` or `cat`; `dcnv2` has its own.
        interact_itself: keep the diagonal of the dot interaction, too.
        interaction_padding: the interaction's output is padded with zeros to a multiple of this width.
        cross_layers, cross_rank: depth and rank of `dcnv2`'s cross network.
        quotient_remainder: applied to tables of more rows than its threshold that do not state their own.
        mixed_dimension: applied to tables of more rows than its threshold; excludes quotient_remainder.
        pooling_weights: for tables that state none, `fixed` or `learned` weights per row.
        combiner: for tables made from a schema.
        row_dtype: for tables made from a schema: how rows are stored.
        dropout: rate after each hidden layer of the MLPs, in [0, 1).
        normalization: `batch` or `layer` after each hidden layer, or None.
        tasks: names of the outputs, one logit each.
        seed: of the initial values.

    Raises:
        ValueError: a value is not valid or two disagree; the message names both.

    Example:
        >>> DLRMConfig(num_dense=13, embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 1)).tables
        ()
    """

    architecture: Architecture = "dlrm"
    num_dense: int = 0
    tables: tuple[TableConfig, ...] = ()
    features: tuple[FeatureConfig, ...] = ()
    embedding_dim: int
    bottom_mlp: tuple[int, ...] = ()
    top_mlp: tuple[int, ...]
    interaction: Interaction = "dot"
    interact_itself: bool = False
    interaction_padding: int = 1
    cross_layers: int = 3
    cross_rank: int = 512
    quotient_remainder: QuotientRemainderConfig | None = None
    mixed_dimension: MixedDimensionConfig | None = None
    pooling_weights: PoolingWeights | None = None
    combiner: Combiner = "sum"
    row_dtype: RowDtype = "float32"
    dropout: float = 0.0
    normalization: Normalization | None = None
    tasks: tuple[str, ...] = ("label",)
    seed: int = 0

    readers: ClassVar[Mapping[str, Reader]] = {
        "tables": each(TableConfig.from_dict),
        "features": each(FeatureConfig.from_dict),
        "quotient_remainder": optional(QuotientRemainderConfig.from_dict),
        "mixed_dimension": optional(MixedDimensionConfig.from_dict),
    }

    def __post_init__(self) -> None:
        self._check_fields()
        self._check_widths()
        self._gather_tables()
        self._check_tables()
        self.resolved_tables()  # a table that cannot take the model's settings is refused here, not at build

    def _check_fields(self) -> None:
        owner, integer = "DLRMConfig", checks.check_integer
        self._set(
            num_dense=integer(owner, "num_dense", self.num_dense, minimum=0),
            tables=checks.check_instances(owner, "tables", self.tables, TableConfig),
            features=checks.check_instances(owner, "features", self.features, FeatureConfig),
            embedding_dim=integer(owner, "embedding_dim", self.embedding_dim, minimum=1),
            bottom_mlp=checks.check_integers(owner, "bottom_mlp", self.bottom_mlp, minimum=1),
            top_mlp=checks.check_integers(owner, "top_mlp", self.top_mlp, minimum=1),
            interaction_padding=integer(owner, "interaction_padding", self.interaction_padding, minimum=1),
            cross_layers=integer(owner, "cross_layers", self.cross_layers, minimum=1),
            cross_rank=integer(owner, "cross_rank", self.cross_rank, minimum=1),
            dropout=checks.check_number(owner, "dropout", self.dropout, minimum=0.0, below=1.0),
            tasks=checks.check_names(owner, "tasks", self.tasks),
            seed=integer(owner, "seed", self.seed, minimum=0),
        )
        checks.check_choice(owner, "architecture", self.architecture, get_args(Architecture))
        checks.check_choice(owner, "interaction", self.interaction, get_args(Interaction))
        checks.check_choice(owner, "combiner", self.combiner, get_args(Combiner))
        checks.check_choice(owner, "row_dtype", self.row_dtype, get_args(RowDtype))
        checks.check_flag(owner, "interact_itself", self.interact_itself)
        if self.pooling_weights is not None:
            checks.check_choice(owner, "pooling_weights", self.pooling_weights, get_args(PoolingWeights))
        if self.normalization is not None:
            checks.check_choice(owner, "normalization", self.normalization, get_args(Normalization))
        for name, kind in (
            ("quotient_remainder", QuotientRemainderConfig),
            ("mixed_dimension", MixedDimensionConfig),
        ):
            checks.check_optional(checks.check_instance, owner, name, getattr(self, name), kind=kind)
        checks.check_unique(owner, "tasks", self.tasks)
        if not self.tasks:
            raise ValueError("DLRMConfig: tasks is empty. Name at least one output.")

    def _check_widths(self) -> None:
        if (self.num_dense or self.bottom_mlp) and self.bottom_mlp[-1:] != (self.embedding_dim,):
            raise ValueError(
                f"DLRMConfig: bottom_mlp={list(self.bottom_mlp)} does not end in "
                f"embedding_dim={self.embedding_dim}; the dense vector interacts with the embeddings at one "
                f"width. Make its last layer {self.embedding_dim}, or change embedding_dim."
            )
        if not self.top_mlp or self.top_mlp[-1] != 1:
            raise ValueError(
                f"DLRMConfig: top_mlp={list(self.top_mlp)} does not end in 1, the logit. Append 1 "
                "(several outputs are named in tasks, one logit each)."
            )
        if self.quotient_remainder is not None and self.mixed_dimension is not None:
            raise ValueError("DLRMConfig: quotient_remainder and mixed_dimension are both given. Remove one.")
        if self.quotient_remainder is not None and self.pooling_weights is not None:
            raise ValueError("DLRMConfig: quotient_remainder and pooling_weights are both given. Remove one.")
        split = self.quotient_remainder
        if split is not None and split.operation == "concat" and self.embedding_dim % 2:
            raise ValueError(
                f"DLRMConfig: embedding_dim={self.embedding_dim} is odd, and quotient-remainder 'concat' "
                "stores half of it in each of two tables. Give an even embedding_dim, or operation: mult."
            )

    def _gather_tables(self) -> None:
        """Features that carry their table's object are kept by name; the table joins `tables`."""
        tables = {table.name: table for table in self.tables}
        checks.check_unique("DLRMConfig", "tables", (table.name for table in self.tables))
        for feature in self.features:
            table = feature.table
            if isinstance(table, TableConfig) and tables.setdefault(table.name, table) != table:
                raise ValueError(
                    f"DLRMConfig: feature {quoted(feature.name)} carries a table "
                    f"{quoted(table.name)} that differs from "
                    "another one of that name. Share one TableConfig, or rename it."
                )
        self._set(
            tables=tuple(tables.values()),
            features=tuple(replace(feature, table=feature.table_name) for feature in self.features),
        )

    def _check_tables(self) -> None:
        names = [table.name for table in self.tables]
        checks.check_unique("DLRMConfig", "features", (feature.name for feature in self.features))
        for feature in self.features:
            if feature.name == "dense":
                raise ValueError("DLRMConfig: a feature is named 'dense', the name of the dense vector. Rename it.")
            if feature.table_name not in names:
                raise ValueError(
                    f"DLRMConfig: feature {quoted(feature.name)} reads table "
                    f"{quoted(feature.table_name)}, which is not "
                    f"in tables{checks.hint(feature.table_name, names)} Add it, or name one that is there."
                )
        used = {feature.table_name for feature in self.features}
        for table in self.tables:
            if table.name not in used:
                raise ValueError(
                    f"DLRMConfig: table {quoted(table.name)} is read by no feature. Remove it, or add a feature "
                    f"with table: {table.name}."
                )
            if table.output_width != self.embedding_dim:
                field = "embedding_dim" if table.output_dim is None else "output_dim"
                raise ValueError(
                    f"DLRMConfig: table {quoted(table.name)}: {field}={table.output_width} differs from the "
                    f"model's embedding_dim={self.embedding_dim}. Make them equal, or project (output_dim)."
                )

    @property
    def num_features(self) -> int:
        """F, categorical inputs."""
        return len(self.features)

    def to_dict(self) -> dict[str, Any]:
        """As every record, but tables of the model's own width do not repeat it: it is stated once."""
        plain = super().to_dict()
        for table in plain["tables"]:
            if table["embedding_dim"] == self.embedding_dim:
                del table["embedding_dim"]
        return plain

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """As every record; a table without `embedding_dim` takes the model's."""
        if isinstance(given, Mapping) and isinstance(given.get("tables"), (list, tuple)) and "embedding_dim" in given:
            width = {"embedding_dim": given["embedding_dim"]}
            tables = [{**width, **table} if isinstance(table, Mapping) else table for table in given["tables"]]
            given = {**given, "tables": tables}
        return super().from_dict(given)

    @classmethod
    def from_schema(cls, spec: FeatureSpec, **fields: Any) -> Self:
        """A model of the columns of `spec`; `fields` are the other arguments of DLRMConfig.

        Raises:
            ValueError: the schema has no vocabulary size for a table yet.
        """
        return cls(**fields).with_schema(spec)

    def with_schema(self, spec: FeatureSpec) -> Self:
        """The same model on the columns of `spec`: its dense width, features, tables and tasks.

        A table that the config already has keeps its settings and takes the schema's vocabulary size; a new
        one takes the model's width, combiner and row_dtype.

        Raises:
            ValueError: the schema has no vocabulary size for a table yet.
        """
        present = {table.name: table for table in self.tables}
        tables = []
        for name in spec.table_names:
            if name not in spec.vocabulary_sizes:
                raise ValueError(
                    f"DLRMConfig: the schema has no vocabulary size for table {quoted(name)}. Prepare the data "
                    "first, or add it to vocabulary_sizes."
                )
            size = spec.vocabulary_sizes[name]
            if name in present:
                tables.append(replace(present[name], vocabulary_size=size))
            else:
                tables.append(
                    TableConfig(
                        name=name,
                        vocabulary_size=size,
                        embedding_dim=self.embedding_dim,
                        combiner=self.combiner,
                        row_dtype=self.row_dtype,
                    )
                )
        features = [
            FeatureConfig(name=column.name, table=column.table, hotness=column.hotness, id_policy=column.id_policy)
            for column in spec.categorical
        ]
        return replace(
            self, num_dense=spec.num_dense, tables=tuple(tables), features=tuple(features), tasks=spec.labels
        )

    def resolved_tables(self) -> tuple[TableConfig, ...]:
        """The tables with the model's quotient-remainder and pooling weights applied.

        `mixed_dimension` is not applied here: its widths depend on all tables together and are solved by the
        layer that holds the projections.
        """
        return tuple(self._resolve(table) for table in self.tables)

    def _resolve(self, table: TableConfig) -> TableConfig:
        split = self.quotient_remainder
        if table.quotient_remainder is None and split is not None and table.vocabulary_size > split.threshold:
            table = replace(table, quotient_remainder=split)
        if table.pooling_weights is None and self.pooling_weights is not None:
            table = replace(table, pooling_weights=self.pooling_weights)
        return table

    def resolved_features(self) -> tuple[FeatureConfig, ...]:
        """The features, each with its table of `resolved_tables`: what EmbeddingCollection takes."""
        tables = {table.name: table for table in self.resolved_tables()}
        return tuple(replace(feature, table=tables[feature.table_name]) for feature in self.features)
