"""ExperimentConfig: model, training and data in one YAML file, with presets and overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.config.data import DataConfig
from tfdlrm.config.model import DLRMConfig
from tfdlrm.config.train import TrainConfig
from tfdlrm.records import Reader, Record
from tfdlrm.yaml_text import parse_yaml

_PRESETS = resources.files("tfdlrm") / "presets"
_SUFFIX = ".yaml"

Config = TypeVar("Config", bound=Record)


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(Record):
    """Everything one run is made from.

    Example:
        >>> config = preset("criteo-kaggle")
        >>> ExperimentConfig.from_yaml(config.to_yaml()) == config
        True
    """

    model: DLRMConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)

    readers: ClassVar[Mapping[str, Reader]] = {
        "model": DLRMConfig.from_dict,
        "train": TrainConfig.from_dict,
        "data": DataConfig.from_dict,
    }

    def __post_init__(self) -> None:
        for name, kind in (("model", DLRMConfig), ("train", TrainConfig), ("data", DataConfig)):
            checks.check_instance("ExperimentConfig", name, getattr(self, name), kind)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the package."""
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in _PRESETS.iterdir() if file.name.endswith(_SUFFIX)))


def preset(name: str) -> ExperimentConfig:
    """A preset by name.

    Raises:
        ValueError: there is none of that name.
    """
    checks.check_choice("preset", "name", name, preset_names())
    text = (_PRESETS / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    return ExperimentConfig.from_yaml(text, source=f"preset {quoted(name)}")


def load_config(path_or_preset: str | os.PathLike[str]) -> ExperimentConfig:
    """A config from a YAML file or, where no file of that name is, from the preset.

    Raises:
        FileNotFoundError: neither a file nor a preset.
        ValueError: the file is not a valid config.
    """
    path = Path(path_or_preset)
    if path.is_file():
        return ExperimentConfig.from_file(path)
    name = os.fspath(path_or_preset)
    if name in preset_names():
        return preset(name)
    raise FileNotFoundError(
        f"{quoted(name)} is neither a file nor a preset{checks.hint(name, preset_names())} Presets: "
        f"{', '.join(preset_names())}."
    )


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """The config with `a.b=value` assignments applied, all of them before anything is checked.

    Values are YAML: `train.epochs=2`, `model.top_mlp=[64,1]`, `data.path=null`. Items of a list are named by
    their `name` or their position: `model.tables.item.trainable=false`. A part that is null is created:
    `model.quotient_remainder.collisions=8`.

    Raises:
        ValueError: not an assignment, an unknown key (the nearest valid one is named) or a value that its
            field refuses.

    Example:
        >>> apply_overrides(preset("criteo-kaggle"), ["train.epochs=2"]).train.epochs
        2
    """
    plain = config.to_dict()
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ValueError(f"--set {quoted(override)} is not an assignment. Write it as train.epochs=2.")
        _assign(plain, keys, parse_yaml(text, f"--set {override}"), f"--set {override}")
    return type(config).from_dict(plain)


def _assign(plain: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    here: Any = plain
    for depth, key in enumerate(keys):
        walked = ".".join(keys[:depth]) or "config"
        if isinstance(here, list):
            position: Any = _find(here, key, walked, source)
        elif isinstance(here, dict):
            position = key
        else:
            raise ValueError(
                f"{source}: {walked} is {quoted(here)}, which has no key {quoted(key)}. Set {walked} itself."
            )
        if depth == len(keys) - 1:
            here[position] = value  # an unknown last key is refused by from_dict, which knows the valid ones
            return
        if isinstance(here, dict):
            checks.reject_unknown_keys(f"{source}: {walked}", [key], here)
            if here[key] is None:
                here[key] = {}
        here = here[position]


def _find(items: list[Any], key: str, walked: str, source: str) -> int:
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    raise ValueError(
        f"{source}: {walked} has no item {quoted(key)}{checks.hint(key, names)} Give a name in it, or a position below "
        f"{len(items)}."
    )
