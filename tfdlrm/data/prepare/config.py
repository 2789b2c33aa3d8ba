"""PrepareConfig: what `tfdlrm data prepare` does to raw rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.records import Reader, Record, optional
from tfdlrm.schema import FeatureSpec

RawFormat = Literal["criteo-kaggle", "criteo-terabyte", "avazu", "csv", "parquet", "movielens"]
PrepareSplit = Literal["none", "criteo-kaggle", "criteo-terabyte", "time", "time-column", "hash", "random"]
VocabularyOrder = Literal["first-appearance", "frequency"]
OutputFormat = Literal["arrow", "parquet", "tfrecord"]

_SPLITS_BY_COLUMN = ("time-column", "hash")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Record):
    """How raw rows become the training format.

    Args:
        format: how the raw rows are written.
        schema: the columns; None for the format's own, or for `schema.yaml` beside the first source.
        split: `none`, all rows train; `criteo-kaggle`, seven equal days of which the last is test and validation;
            `criteo-terabyte`, the last file is; `time`, contiguous parts in the order of the rows; `time-column`, the
            same in the order of the values of `split_column`; `hash`, by a hash of the value of `split_column` (rows
            with one value stay together); `random`, by row and `seed`.
        train_fraction, validation_fraction: of the last four; the rest is the test part.
        split_column: a key column of the schema.
        seed: of `random`, `hash` and `keep_negatives`.
        vocabulary_order: ids by first appearance (the reference's) or from the most frequent value to the rarest.
        min_count: rarer values get the out-of-vocabulary row; above 1, columns need `id_policy: oov`.
        vocabularies: a folder of an earlier preparation; its values keep their ids.
        extend: values that those vocabularies do not hold are added behind them.
        oov: every column with a vocabulary gets an out-of-vocabulary row.
        id_modulo: integer and hex ids are taken modulo this first.
        keep_negatives: share of the training rows with label 0 that is kept.
        multi_hot: `mlperf-dcnv2` makes MLPerf's bags from Criteo's single ids.
        output: the files' format.

    Raises:
        ValueError: a value is not valid, or an option has no meaning with another one.
    """

    format: RawFormat
    schema: FeatureSpec | None = None
    split: PrepareSplit = "none"
    train_fraction: float = 0.8
    validation_fraction: float = 0.1
    split_column: str | None = None
    seed: int = 0
    vocabulary_order: VocabularyOrder = "first-appearance"
    min_count: int = 1
    vocabularies: str | None = None
    extend: bool = False
    oov: bool = False
    id_modulo: int | None = None
    keep_negatives: float = 1.0
    multi_hot: Literal["mlperf-dcnv2"] | None = None
    output: OutputFormat = "arrow"

    readers: ClassVar[Mapping[str, Reader]] = {"schema": optional(FeatureSpec.from_dict)}

    def __post_init__(self) -> None:
        owner, maybe = "PrepareConfig", checks.check_optional
        for name, kind in (
            ("format", RawFormat),
            ("split", PrepareSplit),
            ("vocabulary_order", VocabularyOrder),
            ("output", OutputFormat),
        ):
            checks.check_choice(owner, name, getattr(self, name), get_args(kind))
        for name in ("split_column", "vocabularies"):
            maybe(checks.check_name, owner, name, getattr(self, name))
        for name in ("extend", "oov"):
            checks.check_flag(owner, name, getattr(self, name))
        maybe(checks.check_instance, owner, "schema", self.schema, kind=FeatureSpec)
        if self.multi_hot is not None:
            checks.check_choice(owner, "multi_hot", self.multi_hot, ("mlperf-dcnv2",))
        number, integer = checks.check_number, checks.check_integer
        self._set(
            train_fraction=number(owner, "train_fraction", self.train_fraction, above=0.0, maximum=1.0),
            validation_fraction=number(owner, "validation_fraction", self.validation_fraction, minimum=0.0, below=1.0),
            keep_negatives=number(owner, "keep_negatives", self.keep_negatives, above=0.0, maximum=1.0),
            seed=integer(owner, "seed", self.seed, minimum=0),
            min_count=integer(owner, "min_count", self.min_count, minimum=1),
            id_modulo=maybe(integer, owner, "id_modulo", self.id_modulo, minimum=1),
        )
        self._check_combinations(owner)

    def _check_combinations(self, owner: str) -> None:
        if self.train_fraction + self.validation_fraction > 1.0 + 1e-9:
            raise ValueError(
                f"{owner}: train_fraction={self.train_fraction} and validation_fraction={self.validation_fraction} "
                "add up to more than 1. Lower one."
            )
        if (self.split in _SPLITS_BY_COLUMN) != (self.split_column is not None):
            raise ValueError(
                f"{owner}: split={quoted(self.split)} and split_column={quoted(self.split_column)} do not fit. Splits "
                f"{' and '.join(_SPLITS_BY_COLUMN)} go by a key column of the schema; the others need none."
            )
        if self.extend and self.vocabularies is None:
            raise ValueError(
                f"{owner}: extend has no meaning without vocabularies. Give the earlier folder, or drop it."
            )
        if self.vocabularies is not None and self.vocabulary_order == "frequency" and not self.extend:
            raise ValueError(
                f"{owner}: vocabulary_order='frequency' has no meaning with "
                f"vocabularies={quoted(self.vocabularies)}: their "
                "ids are given. Remove it, or add extend for the values that come behind them."
            )
