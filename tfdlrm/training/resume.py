"""Going on with a run: which config may have changed, and from which checkpoint."""

from __future__ import annotations

from typing import Any

import keras

from tfdlrm.checks import quoted
from tfdlrm.config import ExperimentConfig, ParameterServerConfig
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.build import build_model
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run_state import RunState

# What may differ from the config a run began with: how long it goes on, what is kept, and where files lie. All else
# would make it another run.
MAY_CHANGE = frozenset(
    {
        "train.epochs",
        "train.early_stopping_patience",
        "train.checkpoint_every_steps",
        "train.checkpoint_every_minutes",
        "train.keep_checkpoints",
        "train.steps_per_execution",
        "train.group_by",
        "train.strategy",
        *(f"train.parameter_server.{name}" for name in ParameterServerConfig.field_names()),
        "data.path",
        "data.validation_path",
        "data.test_path",
    }
)
_SHOWN_CHANGES = 5


def resume_run(directory: ModelDir, config: ExperimentConfig, spec: FeatureSpec) -> tuple[keras.Model, RunState]:
    """The model and the state of the newest undamaged checkpoint.

    Args:
        directory: of the run.
        config: to go on with, resolved with the schema.
        spec: the columns of the data.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: config or schema differ in a key that may not change; names it and both values.
        DamagedCheckpointError: every checkpoint is damaged.
    """
    checkpoints = directory.checkpoints(config.train.keep_checkpoints)
    if not checkpoints.names():
        raise FileNotFoundError(
            f"{checkpoints.directory}: no checkpoint to resume from. Train without --resume, or give the --model-dir "
            "of a run that has written one."
        )
    model: keras.Model | None = None
    for name in checkpoints.newest_first():
        refuse_changes(*checkpoints.read_config(name), config, spec)
        model = model or build_model(config, spec)
        try:
            return model, checkpoints.restore(name, model)
        except DamagedCheckpointError as error:
            checkpoints.set_aside(name, error)
    raise DamagedCheckpointError(
        f"{checkpoints.directory}: every checkpoint is damaged; they are kept as damaged-*. Train without --resume in "
        "another --model-dir."
    )


def refuse_changes(
    saved: ExperimentConfig, saved_spec: FeatureSpec, config: ExperimentConfig, spec: FeatureSpec
) -> None:
    """Refuses another config or schema than the run began with, but for the keys in `MAY_CHANGE`.

    Raises:
        ValueError: names keys and both values.
    """
    before = {**_flat(saved.to_dict()), **_flat(saved_spec.to_dict(), "schema.")}
    now = {**_flat(config.to_dict()), **_flat(spec.to_dict(), "schema.")}
    changes = [
        f"{key}: was {quoted(before.get(key, 'absent'))}, now {quoted(now.get(key, 'absent'))}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key, "absent") != now.get(key, "absent") and key not in MAY_CHANGE
    ]
    if changes:
        more = f" and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
        raise ValueError(
            "cannot resume: the config is not the one this run began with: "
            f"{'; '.join(changes[:_SHOWN_CHANGES])}{more}. "
            f"Put it back, or train in another --model-dir. May change: {', '.join(sorted(MAY_CHANGE))}."
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted keys; items of a list of named things under their name."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if isinstance(value, dict) and value:
        return {key: leaf for name, item in value.items() for key, leaf in _flat(item, f"{prefix}{name}.").items()}
    return {prefix.removesuffix("."): value}
