"""Space: which keys of a config are searched, and which values each may take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfdlrm.checks import check_flag, check_list, check_mapping, check_number, quoted, reject_unknown_keys
from tfdlrm.config import ExperimentConfig, apply_overrides
from tfdlrm.files import read_text
from tfdlrm.yaml_text import parse_yaml

_FIELDS = ("choices", "low", "high", "log")
_WIDTH, _BOTTOM = "model.embedding_dim", "model.bottom_mlp"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key and its values: some choices, or a range.

    Args:
        key: of the config, as `--set` takes it: `train.learning_rate`.
        choices: any YAML values; None for a range.
        low, high: ends of a range, which are part of it; whole numbers where both are.
        log: drawn evenly on a logarithmic scale.

    Raises:
        ValueError: neither or both, an end that is missing, or no value between them.
    """

    key: str
    choices: tuple[Any, ...] | None = None
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        owner = f"space: {self.key}"
        check_flag(owner, "log", self.log)
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError(f"{owner}: has choices and a range. Give one of them.")
            if not check_list(owner, "choices", list(self.choices)):
                raise ValueError(f"{owner}: choices is empty. Give at least one value.")
            return
        for name in ("low", "high"):
            if getattr(self, name) is None:
                raise ValueError(f"{owner}: {name} is missing. Give choices: [...], or low and high.")
            check_number(owner, name, getattr(self, name))
        assert self.low is not None
        assert self.high is not None
        if self.low > self.high:
            raise ValueError(f"{owner}: low={self.low} is above high={self.high}. Swap them.")
        if self.log and self.low <= 0:
            raise ValueError(f"{owner}: low={self.low} has no logarithm. Give a number above 0, or leave log out.")

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that are tried on the config before a search begins."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def draw(self, trial: Any) -> Any:
        """A value for an optuna trial."""
        if self.choices is not None:
            # optuna's own choices are plain values; lists are not
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(value) for value in self.choices]))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched.

    Args:
        dimensions: at least one, each key once.

    Example:
        >>> space = Space.from_dict({"train.learning_rate": {"low": 0.001, "high": 0.1, "log": True}})
        >>> space.dimensions[0].key
        'train.learning_rate'
    """

    dimensions: tuple[Dimension, ...]

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise ValueError("space: is empty. Give at least one key, such as train.learning_rate.")

    @classmethod
    def from_dict(cls, given: Any, source: str = "space") -> Space:
        """From YAML: key -> `{choices: [...]}`, a list of choices, or `{low: ..., high: ..., log: ...}`.

        Raises:
            ValueError: names source and key.
        """
        check_mapping(source, "the document", given)
        dimensions = []
        for key, entry in given.items():
            if isinstance(entry, list):
                entry = {"choices": entry}
            check_mapping(f"{source}: {key}", "the entry", entry)
            reject_unknown_keys(f"{source}: {key}", entry, _FIELDS)
            choices = entry.get("choices")
            if choices is not None:
                choices = tuple(check_list(f"{source}: {key}", "choices", choices))
            rest = {name: entry[name] for name in _FIELDS[1:] if name in entry}
            dimensions.append(Dimension(key=str(key), choices=choices, **rest))
        return cls(dimensions=tuple(dimensions))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Space:
        """From a YAML file; see `from_dict`."""
        return cls.from_dict(parse_yaml(read_text(Path(file)), str(file)), str(file))

    @classmethod
    def default(cls, config: ExperimentConfig) -> Space:
        """What pays most often: the learning rate, dropout, the width of vectors and of the top MLP, the batch size."""
        rate, batch = config.train.learning_rate, config.train.global_batch_size
        dimensions = [
            Dimension(key="train.learning_rate", low=rate / 10, high=rate * 5, log=True),
            Dimension(key="train.global_batch_size", choices=tuple(sorted({max(batch // 2, 1), batch, 2 * batch}))),
            Dimension(key="model.dropout", low=0.0, high=0.5),
            Dimension(key="model.top_mlp", choices=([32, 1], [64, 32, 1], [128, 64, 1], [256, 128, 1])),
        ]
        if not config.model.tables:
            dimensions.append(Dimension(key=_WIDTH, choices=(8, 16, 32)))
        if config.model.architecture == "dcnv2":
            dimensions.append(Dimension(key="model.cross_layers", choices=(1, 2, 3)))
        return cls(dimensions=tuple(dimensions))

    def to_dict(self) -> dict[str, Any]:
        """For YAML."""
        plain: dict[str, Any] = {}
        for each in self.dimensions:
            if each.choices is not None:
                plain[each.key] = {"choices": list(each.choices)}
            else:
                plain[each.key] = {"low": each.low, "high": each.high, "log": each.log}
        return plain

    def check(self, config: ExperimentConfig) -> None:
        """Tries every choice, and the ends of every range, on a config.

        Raises:
            ValueError: names key and value.
        """
        for each in self.dimensions:
            for value in each.ends:
                try:
                    with_values(config, {each.key: value})
                except ValueError as error:
                    raise ValueError(f"space: {each.key}={quoted(value)}: {error}") from error

    def draw(self, trial: Any) -> dict[str, Any]:
        """A value for each key."""
        return {each.key: each.draw(trial) for each in self.dimensions}


def with_values(config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
    """The config with these values; the bottom MLP ends in the width of the vectors, unless it is among them.

    Raises:
        ValueError: a key is unknown, or a value refused.
    """
    values = dict(values)
    if _WIDTH in values and _BOTTOM not in values and config.model.bottom_mlp:
        values[_BOTTOM] = [*config.model.bottom_mlp[:-1], values[_WIDTH]]
    return apply_overrides(config, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def value_text(value: Any, digits: int = 3) -> str:
    """A value as people write it."""
    return f"{value:.{digits}g}" if isinstance(value, float) else json.dumps(value, separators=(",", ":"))
