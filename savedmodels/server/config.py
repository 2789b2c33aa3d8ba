"""Which models are served, from flags or from TensorFlow Serving's own config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from savedmodels.server.errors import ServingError
from savedmodels.versions import MAX_VERSION
from tfdlrm.checks import quoted
from tfdlrm.files import read_text

_NAME = re.compile(r"[^/:\s]+")  # what TensorFlow Serving's REST paths can hold


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model to serve.

    Args:
        name: in requests.
        base_path: the folder of its numbered versions.
        num_latest: serve the newest so many versions.
        versions: serve these ones alone, instead; empty for every version there is.
        labels: label -> version.
    """

    name: str
    base_path: Path
    num_latest: int | None = 1
    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"model name {quoted(self.name)} cannot be in a path. Use no '/', ':' or blanks.")
        if self.num_latest is not None and self.num_latest < 1:
            raise ValueError(f"model {quoted(self.name)}: the newest {self.num_latest} versions: give 1 or more.")
        for number in self.versions:
            if not 0 <= number <= MAX_VERSION:
                raise ValueError(
                    f"model {quoted(self.name)}: version {number} is not possible. Versions are 0 to {MAX_VERSION}."
                )

    def wanted(self, versions: Iterable[int]) -> set[int]:
        """Of the versions there are, those to serve."""
        there = set(versions)
        if self.num_latest is not None:
            return set(sorted(there)[-self.num_latest :])
        return there & set(self.versions) if self.versions else there


def read_config(path: str | os.PathLike[str]) -> list[ModelConfig]:
    """Reads a config file of TensorFlow Serving (`--model_config_file`).

    Raises:
        ValueError: not a config, or one with what this server does not have.
        OSError: the file cannot be read.
    """
    from google.protobuf import text_format

    from savedmodels.wire.protos import model_server_config_pb2

    path = Path(path)
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(read_text(path), config)
        return from_proto(config)
    except text_format.ParseError as error:
        raise ValueError(f"{path} is no text of a ModelServerConfig: {error}") from error
    except ServingError as error:
        raise ValueError(f"{path}: {error.message}") from error


def from_proto(config: Any) -> list[ModelConfig]:
    """The models of a `ModelServerConfig`.

    Raises:
        ServingError: INVALID_ARGUMENT: not a list of models, a name twice or missing, a platform but TensorFlow.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise ServingError("INVALID_ARGUMENT", "A config of the form model_config_list is expected.")
    models: dict[str, ModelConfig] = {}
    for entry in config.model_config_list.config:
        if entry.model_platform not in ("", "tensorflow") or entry.model_type not in (0, 1):
            raise ServingError(
                "INVALID_ARGUMENT",
                f'model {quoted(entry.name)}: model_platform "{entry.model_platform}" is not "tensorflow".',
            )
        if not entry.base_path:
            raise ServingError("INVALID_ARGUMENT", f"model {quoted(entry.name)} has no base_path.")
        if entry.name in models:
            raise ServingError("INVALID_ARGUMENT", f"model {quoted(entry.name)} is listed twice.")
        policy = entry.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        try:
            models[entry.name] = ModelConfig(
                name=entry.name,
                base_path=Path(entry.base_path),
                num_latest=(policy.latest.num_versions or 1) if kind in (None, "latest") else None,
                versions=tuple(policy.specific.versions) if kind == "specific" else (),
                labels=dict(entry.version_labels),
            )
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        if kind == "specific" and not policy.specific.versions:
            raise ServingError(
                "INVALID_ARGUMENT", f"model {quoted(entry.name)}: the policy specific lists no versions."
            )
    return list(models.values())
