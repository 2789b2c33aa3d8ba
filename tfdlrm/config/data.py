"""DataConfig: where rows come from and how they are split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.records import Reader, Record, optional
from tfdlrm.schema import FeatureSpec

Format = Literal["synthetic", "criteo", "avazu", "csv", "parquet", "arrow", "movielens", "prepared"]
Split = Literal["none", "criteo-kaggle", "time"]
HotnessDistribution = Literal["fixed", "uniform", "geometric"]


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Record):
    """Criteo-shaped rows drawn from a planted teacher, whose own AUC and log loss bound every model's.

    Args:
        num_rows: rows in all parts together.
        num_dense: dense columns.
        vocabulary_sizes: V of each categorical column's table.
        hotness: ids a bag, one number for all columns or one each.
        power_law_exponent: a; id k has probability proportional to (k + 1)^-a; 0 is uniform.
        teacher_dim: width of the teacher's hidden vectors.
        teacher_scale: standard deviation of the teacher's logit; larger is easier.
        positive_rate: fraction of labels 1 the teacher aims at.
        missing_fraction: fraction of raw cells left empty.
        hotness_distribution: lengths of the bags of columns whose hotness h is above 1: `fixed`, always h; `uniform` in
            0..h; `geometric` with mean h. The latter two make ragged columns. A column of hotness 1 always has one id.
        correlation: fraction of rows in which the first id of a bag follows from that of the column before: it is
            that id modulo V.
        days: contiguous days of equal size (the first get the remainder); with 2 or more, `day` is a key column.
        drift: what changes from a day to the next: the ids hot ids move by, as a fraction of the first 1000 (or V),
            and the share of the teacher's variance that is drawn anew.
        cold_fraction: fraction of the ids of a day, from the second on, that never occurred on a day before. Tables
            of fewer than 2 * days rows have none.
        seed: of the teacher and of the rows.
    """

    num_rows: int
    num_dense: int = 13
    vocabulary_sizes: tuple[int, ...]
    hotness: int | tuple[int, ...] = 1
    power_law_exponent: float = 1.05
    teacher_dim: int = 4
    teacher_scale: float = 2.0
    positive_rate: float = 0.25
    missing_fraction: float = 0.0
    hotness_distribution: HotnessDistribution = "fixed"
    correlation: float = 0.0
    days: int = 1
    drift: float = 0.0
    cold_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        owner, integer, number = "SyntheticConfig", checks.check_integer, checks.check_number
        self._set(
            num_rows=integer(owner, "num_rows", self.num_rows, minimum=1),
            num_dense=integer(owner, "num_dense", self.num_dense, minimum=0),
            vocabulary_sizes=checks.check_integers(owner, "vocabulary_sizes", self.vocabulary_sizes, minimum=1),
            power_law_exponent=number(owner, "power_law_exponent", self.power_law_exponent, minimum=0.0),
            teacher_dim=integer(owner, "teacher_dim", self.teacher_dim, minimum=1),
            teacher_scale=number(owner, "teacher_scale", self.teacher_scale, minimum=0.0),
            positive_rate=number(owner, "positive_rate", self.positive_rate, above=0.0, below=1.0),
            missing_fraction=number(owner, "missing_fraction", self.missing_fraction, minimum=0.0, below=1.0),
            correlation=number(owner, "correlation", self.correlation, minimum=0.0, maximum=1.0),
            days=integer(owner, "days", self.days, minimum=1),
            drift=number(owner, "drift", self.drift, minimum=0.0, maximum=1.0),
            cold_fraction=number(owner, "cold_fraction", self.cold_fraction, minimum=0.0, maximum=1.0),
            seed=integer(owner, "seed", self.seed, minimum=0),
        )
        if not self.vocabulary_sizes:
            raise ValueError("SyntheticConfig: vocabulary_sizes is empty. Give one size a categorical column.")
        if isinstance(self.hotness, (list, tuple)):
            self._set(hotness=checks.check_integers(owner, "hotness", self.hotness, minimum=1))
            if len(self.hotness) != len(self.vocabulary_sizes):
                raise ValueError(
                    f"{owner}: hotness has {len(self.hotness)} numbers for {len(self.vocabulary_sizes)} "
                    "vocabulary_sizes. Give one a column, or a single number."
                )
        else:
            self._set(hotness=integer(owner, "hotness", self.hotness, minimum=1))
        checks.check_choice(owner, "hotness_distribution", self.hotness_distribution, get_args(HotnessDistribution))
        if self.hotness_distribution != "fixed" and max(self.hotness_per_feature) == 1:
            raise ValueError(
                f"{owner}: hotness_distribution={quoted(self.hotness_distribution)} is given and every hotness is 1. "
                "Raise hotness, or remove it."
            )
        if self.days > self.num_rows:
            raise ValueError(f"{owner}: days={self.days} is more than num_rows={self.num_rows}. Lower it.")
        for name in ("drift", "cold_fraction"):
            if getattr(self, name) and self.days == 1:
                raise ValueError(f"{owner}: {name}={getattr(self, name)} needs days. Set days to 2 or more.")

    @property
    def hotness_per_feature(self) -> tuple[int, ...]:
        """Ids a bag, one number a column."""
        if isinstance(self.hotness, tuple):
            return self.hotness
        return (self.hotness,) * len(self.vocabulary_sizes)

    @property
    def ragged_per_feature(self) -> tuple[bool, ...]:
        """Whether the bags of a column vary in length, one flag a column."""
        varies = self.hotness_distribution != "fixed"
        return tuple(varies and hotness > 1 for hotness in self.hotness_per_feature)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Record):
    """Where the rows come from and how they are split.

    Args:
        format: which reader; `prepared` for a folder that `tfdlrm data prepare` wrote, which has its own parts.
        path: file or folder of the training rows, or of all rows where `split` divides them.
        validation_path, test_path: further files, where the parts are separate.
        split: how `path` is divided: `none`; `criteo-kaggle`, the reference's days; `time`, contiguous parts
            of the order of time (`train_fraction`, `validation_fraction`, the rest is the test part).
        train_fraction, validation_fraction: for `time`.
        schema: the columns; None to take them from the format or from `schema.yaml` beside the data.
        id_modulo: categorical values are taken modulo this before vocabularies are built; None for no modulo.
        max_rows: read no more than so many rows; None for all.
        synthetic: for format `synthetic`.

    Raises:
        ValueError: a value is not valid, or an option of another format is given.
    """

    format: Format = "synthetic"
    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    split: Split = "none"
    train_fraction: float = 0.8
    validation_fraction: float = 0.1
    schema: FeatureSpec | None = None
    id_modulo: int | None = None
    max_rows: int | None = None
    synthetic: SyntheticConfig | None = None

    readers: ClassVar[Mapping[str, Reader]] = {
        "schema": optional(FeatureSpec.from_dict),
        "synthetic": optional(SyntheticConfig.from_dict),
    }

    def __post_init__(self) -> None:
        owner, maybe = "DataConfig", checks.check_optional
        checks.check_choice(owner, "format", self.format, get_args(Format))
        checks.check_choice(owner, "split", self.split, get_args(Split))
        for name in ("path", "validation_path", "test_path"):
            maybe(checks.check_name, owner, name, getattr(self, name))
        for name in ("id_modulo", "max_rows"):
            self._set(**{name: maybe(checks.check_integer, owner, name, getattr(self, name), minimum=1)})
        self._set(
            train_fraction=checks.check_number(owner, "train_fraction", self.train_fraction, above=0.0, maximum=1.0),
            validation_fraction=checks.check_number(
                owner, "validation_fraction", self.validation_fraction, minimum=0.0, below=1.0
            ),
        )
        maybe(checks.check_instance, owner, "schema", self.schema, kind=FeatureSpec)
        maybe(checks.check_instance, owner, "synthetic", self.synthetic, kind=SyntheticConfig)
        # Two decimal fractions that add up to 1 may exceed it by a rounding error.
        if self.train_fraction + self.validation_fraction > 1.0 + 1e-9:
            raise ValueError(
                f"{owner}: train_fraction={self.train_fraction} and "
                f"validation_fraction={self.validation_fraction} add up to more than 1. Lower one."
            )
        if self.synthetic is not None and self.format != "synthetic":
            raise ValueError(
                f"{owner}: synthetic is given with format={quoted(self.format)}. Remove it, or set format: synthetic."
            )
        if self.format == "synthetic" and self.path is not None:
            raise ValueError(
                f"{owner}: path={quoted(self.path)} is given with format='synthetic', which reads no file. Set "
                f"format to one of: {', '.join(f for f in get_args(Format) if f != 'synthetic')}."
            )
