"""The numbers of a Keras model on disk: tables, and all the rest in one `.npz` beside them.

Variables are told apart by their place in the model (`weights/0003`), because Keras numbers names by what else the
process has built. Their path is kept with them for messages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.array_files import read_arrays
from tfdlrm.checks import quoted
from tfdlrm.embeddings.checkpoint import (
    DamagedCheckpointError,
    restore_tables,
    save_tables,
    saved_shapes,
    verify_saved,
)
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models.base import collections_of, tables_of

VARIABLES_FILE = "variables.npz"
WEIGHTS = "weights"


class Place(NamedTuple):
    """One variable of a model: its group, its number there, what it is called, and itself."""

    group: str
    number: int
    label: str
    variable: Any

    @property
    def key(self) -> str:
        return f"{self.group}/{self.number:04d}"


def model_places(model: keras.Model) -> list[Place]:
    """Every Keras variable of a compiled, built model: weights, seeds, optimizer and metrics, in that order.

    Also the counts of id policies, which are no Keras variables.
    """
    known = {id(variable) for variable in model.weights}
    groups = {
        WEIGHTS: dense_weights(model.weights),
        "seeds": [variable for variable in model.variables if id(variable) not in known],
        "optimizer": model.optimizer.variables,
        "metrics": [variable for metric in model.metrics for variable in metric.variables],
        "id_policy_counts": [layer._policy_counts for layer in collections_of(model)],
    }
    return [
        Place(group, number, _label(variable), variable)
        for group, variables in groups.items()
        for number, variable in enumerate(variables)
    ]


def save_model_state(model: keras.Model, folder: Path) -> None:
    """Writes tables and variables into a folder.

    Args:
        model: compiled and built.
        folder: exists.

    Raises:
        OSError: the disk is full or read-only.
    """
    for number, tables in enumerate(tables_of(model)):
        save_tables(tables, folder / _tables_prefix(number))
    arrays: dict[str, np.ndarray] = {}
    for place in model_places(model):
        arrays[f"{place.key} {place.label}"] = np.asarray(tf.convert_to_tensor(place.variable))
    np.savez(folder / VARIABLES_FILE, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def restore_model_state(model: keras.Model, folder: Path, *, weights_only: bool = False) -> None:
    """Reads what `save_model_state` wrote. Dense variables and all shapes are compared before anything is written.

    Args:
        model: compiled and built, of the same config.
        folder: a checkpoint.
        weights_only: leave optimizers, metrics, random state and counts as they are.

    Raises:
        ValueError: of another model; names the variable or table, and both shapes.
        DamagedCheckpointError: files are missing or damaged.
    """
    saved = _load_arrays(folder / VARIABLES_FILE)
    places = [place for place in model_places(model) if not weights_only or place.group == WEIGHTS]
    if weights_only:
        saved = {key: value for key, value in saved.items() if key.startswith(f"{WEIGHTS}/")}
    _refuse_another_model(folder, saved, places)
    for number, tables in enumerate(tables_of(model)):
        restore_tables(tables, folder / _tables_prefix(number), weights_only=weights_only)
    for place in places:
        place.variable.assign(saved[place.key][1])


def saved_model_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every array that `save_model_state` wrote: of tables by name, of the rest by group, number and path.

    Raises:
        DamagedCheckpointError: an index cannot be read.
    """
    found: dict[str, tuple[int, ...]] = {}
    for prefix in _saved_prefixes(folder):
        found |= saved_shapes(prefix)
    dense = _load_arrays(folder / VARIABLES_FILE)
    return found | {f"{key} {label}": value.shape for key, (label, value) in dense.items()}


def verify_model_state(folder: Path) -> None:
    """Reads every byte that `save_model_state` wrote.

    Raises:
        DamagedCheckpointError: files or rows are missing or damaged; names them.
    """
    for prefix in _saved_prefixes(folder):
        verify_saved(prefix)
    _load_arrays(folder / VARIABLES_FILE)


def _saved_prefixes(folder: Path) -> list[Path]:
    return [file.with_suffix("") for file in sorted(folder.glob("tables*.index"))]


def metric_values(model: keras.Model) -> list[np.ndarray]:
    """The state of all metrics; Keras resets it at the start of an epoch, also of one that is resumed in the middle."""
    return [np.asarray(tf.convert_to_tensor(v)) for metric in model.metrics for v in metric.variables]


def assign_metric_values(model: keras.Model, values: list[np.ndarray]) -> None:
    """Puts back what `metric_values` gave."""
    variables = [variable for metric in model.metrics for variable in metric.variables]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _tables_prefix(number: int) -> str:
    return "tables" if number == 0 else f"tables-{number}"


def _label(variable: Any) -> str:
    """A variable's path without the numbers that Keras counts up: `dlrm_3/top_mlp/dense_7` is `top_mlp/dense`."""
    path = getattr(variable, "path", variable.name)
    parts = [re.sub(r"_\d+(?=_|$)", "", part) for part in path.split("/")]
    return "/".join(parts[1:] if len(parts) > 1 else parts)


def _load_arrays(file: Path) -> dict[str, tuple[str, np.ndarray]]:
    """Key -> (label, array)."""
    try:
        arrays = read_arrays(file)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(str(error)) from error
    return {name.partition(" ")[0]: (name.partition(" ")[2], array) for name, array in arrays.items()}


def _refuse_another_model(folder: Path, saved: dict[str, tuple[str, np.ndarray]], places: list[Place]) -> None:
    wanted = {place.key: place for place in places}
    for key in dict.fromkeys([*wanted, *saved]):  # weights first
        if key not in wanted:
            label, array = saved[key]
            was, now = f"{quoted(label)} {list(array.shape)}", "absent"
        elif key not in saved:
            was, now = "absent", f"{quoted(wanted[key].label)} {list(wanted[key].variable.shape)}"
        else:
            label, array = saved[key]
            place = wanted[key]
            if label == place.label and array.shape == tuple(place.variable.shape):
                continue
            was, now = f"{quoted(label)} {list(array.shape)}", f"{quoted(place.label)} {list(place.variable.shape)}"
        raise ValueError(
            f"{folder}: {key.partition('/')[0]} of another model: {was} in the checkpoint, {now} in this model. "
            "Restore it into the config that it was saved with."
        )
