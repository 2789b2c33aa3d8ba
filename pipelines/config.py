"""PipelineConfig: every parameter of a pipeline, in one YAML file. `pipelines/config.yaml` is one with all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from savedmodels.names import QUANTIZATIONS
from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.config import DLRMConfig, ExperimentConfig, TrainConfig
from tfdlrm.records import FrozenMapping, Reader, Record, each
from tfdlrm.schema import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(Record):
    """How far a column's values may move, as the Jensen-Shannon divergence (base 2, from 0 to 1) of their histograms.

    Args:
        default: of every column; None: columns that `columns` does not name are not compared.
        columns: column -> threshold, in the place of `default`; None for a column that may move freely.
    """

    default: float | None = None
    columns: Mapping[str, float | None] = field(default_factory=FrozenMapping)

    def __post_init__(self) -> None:
        owner = "ShiftConfig"
        checks.check_mapping(owner, "columns", self.columns)
        number = checks.check_number
        columns = {
            name: checks.check_optional(number, owner, f"columns[{quoted(name)}]", value, minimum=0.0, maximum=1.0)
            for name, value in self.columns.items()
        }
        default = checks.check_optional(number, owner, "default", self.default, minimum=0.0, maximum=1.0)
        self._set(default=default, columns=FrozenMapping(columns))

    def of(self, column: str) -> float | None:
        """The threshold of a column."""
        return self.columns.get(column, self.default)


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig(Record):
    """What examples must be like for a model to be trained on them.

    Args:
        schema: a curated `schema.pbtxt` (tensorflow_metadata), that examples are validated against; None: one is
            inferred from the training rows of the same run, which finds what differs between the splits.
        drift: from the rows that were accepted last.
        skew: of the rows for evaluation from those for training.
        max_nan: share of a numeric column's values that may be NaN. Empty cells are none; what becomes of both is said
            by the column's `missing`.
    """

    schema: str | None = None
    drift: ShiftConfig = field(default_factory=ShiftConfig)
    skew: ShiftConfig = field(default_factory=ShiftConfig)
    max_nan: float = 0.01

    readers: ClassVar[Mapping[str, Reader]] = {"drift": ShiftConfig.from_dict, "skew": ShiftConfig.from_dict}

    def __post_init__(self) -> None:
        checks.check_optional(checks.check_name, "ExamplesConfig", "schema", self.schema)
        for name in ("drift", "skew"):
            checks.check_instance("ExamplesConfig", name, getattr(self, name), ShiftConfig)
        max_nan = checks.check_number("ExamplesConfig", "max_nan", self.max_nan, minimum=0.0, maximum=1.0)
        self._set(max_nan=max_nan)


@dataclass(frozen=True, kw_only=True)
class MetricBound(Record):
    """What a metric of a new model must be, over all rows for evaluation.

    Args:
        minimum, maximum: of its value; None: no bound.
        slack: how much worse than the latest blessed model's it may be on the same rows; None: not compared.
    """

    minimum: float | None = None
    maximum: float | None = None
    slack: float | None = None

    def __post_init__(self) -> None:
        for name in ("minimum", "maximum", "slack"):
            number = checks.check_optional(checks.check_number, "MetricBound", name, getattr(self, name))
            self._set(**{name: number})
        if self.slack is not None and self.slack < 0:
            raise ValueError(f"MetricBound: slack={self.slack} is negative. Give 0 or more.")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"MetricBound: minimum={self.minimum} is above maximum={self.maximum}. Lower it.")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Record):
    """When a model is good enough to be pushed. Bounds hold for all rows together, never for a slice.

    Args:
        slices: lists of columns; metrics are computed for every combination of their values. In YAML a column alone is
            a list of one.
        auc: an AUC above `maximum` is too good to be true: a column gives the label away.
        log_loss: in nats.
        calibration: predicted over observed positives; has no `slack`.
    """

    slices: tuple[tuple[str, ...], ...] = ()
    auc: MetricBound = field(default_factory=lambda: MetricBound(minimum=0.5, maximum=0.999, slack=0.005))
    log_loss: MetricBound = field(default_factory=lambda: MetricBound(slack=0.01))
    calibration: MetricBound = field(default_factory=lambda: MetricBound(minimum=0.5, maximum=2.0))

    readers: ClassVar[Mapping[str, Reader]] = {
        "slices": each(lambda names: (names,) if isinstance(names, str) else names),
        "auc": MetricBound.from_dict,
        "log_loss": MetricBound.from_dict,
        "calibration": MetricBound.from_dict,
    }

    def __post_init__(self) -> None:
        owner = "EvaluationConfig"
        slices = checks.check_list(owner, "slices", self.slices)
        self._set(slices=tuple(checks.check_names(owner, f"slices[{i}]", names) for i, names in enumerate(slices)))
        for name in ("auc", "log_loss", "calibration"):
            checks.check_instance(owner, name, getattr(self, name), MetricBound)
        if all(bound == MetricBound() for bound in (self.auc, self.log_loss, self.calibration)):
            raise ValueError(f"{owner}: no metric has a bound, and TFMA blesses no model without. Give auc a minimum.")
        if self.calibration.slack is not None:
            raise ValueError(
                f"{owner}: calibration has slack={self.calibration.slack}, and more of it is neither better nor worse. "
                "Give minimum and maximum."
            )


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Record):
    """Everything a pipeline is made from. Paths are relative to the working directory.

    Args:
        name: of the pipeline, and of the model that clients will call.
        data: folder of CSV files with a header line, separated by commas, a third of whose rows is for evaluation; or
            of folders `train`, `eval` and perhaps `test` with such files.
        root: folder of all artifacts, and of the metadata store, `metadata.sqlite`; made where it does not exist.
        push_to: folder of the model's versions, which servers watch; None for `<root>/serving`.
        schema: what the columns are; what it leaves open (means, deviations, sizes of tables) is learned. In YAML the
            columns themselves, or the path of a `schema.yaml`.
        model, train: as for `tfdlrm train`.
        min_count, id_modulo: see `pipelines.preprocessing.transform_config`.
        candidates, quantize: see `savedmodels.export.ExportOptions`.
        examples: what examples must be like.
        evaluation: what a model must be like.

    Example:
        >>> config = PipelineConfig(name="clicks", data="data/clicks", root="runs/clicks", schema=spec, model=model)
        >>> PipelineConfig.from_yaml(config.to_yaml()) == config
        True
    """

    name: str
    data: str
    root: str
    push_to: str | None = None
    schema: FeatureSpec
    model: DLRMConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    min_count: int = 1
    id_modulo: int | None = None
    candidates: tuple[str, ...] = ()
    quantize: str = "none"
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    readers: ClassVar[Mapping[str, Reader]] = {
        "schema": lambda given: FeatureSpec.load(given) if isinstance(given, str) else FeatureSpec.from_dict(given),
        "model": DLRMConfig.from_dict,
        "train": TrainConfig.from_dict,
        "examples": ExamplesConfig.from_dict,
        "evaluation": EvaluationConfig.from_dict,
    }

    def __post_init__(self) -> None:
        owner, maybe = "PipelineConfig", checks.check_optional
        for name in ("name", "data", "root"):
            checks.check_name(owner, name, getattr(self, name))
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                f"{owner}: name={quoted(self.name)} cannot be in a path. Give letters, digits, _, . and -."
            )
        maybe(checks.check_name, owner, "push_to", self.push_to)
        for name, kind in (
            ("schema", FeatureSpec),
            ("model", DLRMConfig),
            ("train", TrainConfig),
            ("examples", ExamplesConfig),
            ("evaluation", EvaluationConfig),
        ):
            checks.check_instance(owner, name, getattr(self, name), kind)
        checks.check_choice(owner, "quantize", self.quantize, QUANTIZATIONS)
        self._set(
            min_count=checks.check_integer(owner, "min_count", self.min_count, minimum=1),
            id_modulo=maybe(checks.check_integer, owner, "id_modulo", self.id_modulo, minimum=1),
            candidates=checks.check_names(owner, "candidates", self.candidates),
        )
        self._check_columns()

    def _check_columns(self) -> None:
        columns = self.schema.column_names
        named = {
            "candidates": self.candidates,
            "evaluation.slices": [name for names in self.evaluation.slices for name in names],
            "examples.drift.columns": self.examples.drift.columns,
            "examples.skew.columns": self.examples.skew.columns,
        }
        for key, names in named.items():
            for name in names:
                if name not in columns and not (key == "candidates" and name in self.schema.feature_names):
                    near = checks.nearest(name, columns)
                    hint = f", did you mean {quoted(near)}?" if near else f". There are: {', '.join(columns)}."
                    raise ValueError(
                        f"PipelineConfig: {key} names {quoted(name)}, which is no column of the schema{hint}"
                    )
        for name, value in self.schema.raw.to_dict().items():
            if value and name != "strip":
                raise ValueError(
                    f"PipelineConfig: schema.raw.{name} is {quoted(value)}, and TFX reads files that have a header, "
                    "labels 0 and 1, and empty cells for missing values. Write them so, and leave the key empty."
                )
        if len(self.schema.labels) != 1:
            raise ValueError(
                f"PipelineConfig: the schema has {len(self.schema.labels)} labels ({', '.join(self.schema.labels)}), "
                "and the Evaluator judges one. Leave one; `tfdlrm train` takes several."
            )

    @property
    def experiment(self) -> ExperimentConfig:
        """Model and training."""
        return ExperimentConfig(model=self.model, train=self.train)

    @property
    def store(self) -> Path:
        """The metadata store."""
        return Path(self.root).absolute() / "metadata.sqlite"

    @property
    def serving(self) -> Path:
        """The folder of the model's versions."""
        return Path(self.push_to or Path(self.root) / "serving").absolute()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PipelineConfig:
        """A config from a YAML file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a valid config.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no config of a pipeline there. Begin with pipelines/config.yaml.")
        return cls.from_file(file)
