"""Checkpoints of a run: written whole, the last K kept and the best one, read back from the newest undamaged."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfdlrm import __version__
from tfdlrm.config import ExperimentConfig
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.files import path_inside, read_json
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.checkpoint_folder import remove_folder, tidy, verify_folder, write_folder
from tfdlrm.training.model_state import (
    restore_model_state,
    save_model_state,
    saved_model_shapes,
    verify_model_state,
)
from tfdlrm.training.run_state import RunState

CONFIG_FILE = "config.yaml"
STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{9,})")


class Checkpoints:
    """The checkpoints of one run, each a folder `step-<global step>`.

    A folder holds `tables.*` (rows and slots, as slices), `variables.npz` (dense weights, optimizer, metrics, random
    state), `state.json` (position in the data, best so far, ...), `config.yaml`, `schema.yaml` and `manifest.json`.

    Args:
        directory: where they are; made with the first one.
        keep: how many of the newest are kept; the best one is kept beside them.

    Example:
        >>> checkpoints = Checkpoints(Path("model/checkpoints"), keep=3)
        >>> checkpoints.save(model, RunState(step=1200), config, spec)
        >>> checkpoints.names()
        ['step-000001200']
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory = Path(directory)
        self.keep = keep

    @staticmethod
    def name_of(step: int) -> str:
        """The folder's name of a global step."""
        return f"step-{step:09d}"

    def names(self) -> list[str]:
        """Names of all checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        found = [entry.name for entry in self.directory.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()]
        return sorted(found, key=lambda name: int(name.removeprefix("step-")))

    def path(self, name: str) -> Path:
        """Folder of a checkpoint.

        Raises:
            FileNotFoundError: there is none of that name; lists those there are.
            ValueError: a link in its place leads out of the folder.
        """
        if name not in self.names():
            there = ", ".join(self.names()) or "none"
            raise FileNotFoundError(f"{self.directory / name}: no checkpoint of that name. There are: {there}.")
        return path_inside(self.directory, name)

    def tidy(self) -> None:
        """Removes what a killed process left; only for the process that trains here."""
        if self.directory.is_dir():
            tidy(self.directory)

    def save(self, model: keras.Model, state: RunState, config: ExperimentConfig, spec: FeatureSpec) -> Path:
        """Writes a checkpoint of `state.step`, then removes those no longer kept.

        Raises:
            OSError: the disk is full or read-only. All older checkpoints are as they were.
        """
        name = self.name_of(state.step)

        def write(folder: Path) -> None:
            save_model_state(model, folder)
            text = config.to_yaml()
            (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
            spec.save(folder)
            plain = {
                "tfdlrm": __version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "state": state.to_dict(),
            }
            (folder / STATE_FILE).write_text(json.dumps(plain, indent=1), encoding="utf-8")

        try:
            write_folder(self.directory / name, write)
        except OSError as error:
            older = ", ".join(self.names()) or "none"
            raise OSError(
                f"checkpoint {self.directory / name}: cannot be written: {error}. Older ones are whole: {older}. "
                "Make room or the folder writable, and resume."
            ) from error
        self._remove_old(keep_also={name, state.best.checkpoint if state.best else name})
        return self.directory / name

    def _remove_old(self, keep_also: set[str]) -> None:
        resumable = [name for name in self.names() if self._is_resumable(name)]
        kept = {*resumable[-self.keep :], *keep_also}
        for name in self.names():
            if name not in kept:
                remove_folder(self.directory / name)

    def _is_resumable(self, name: str) -> bool:
        try:
            return self.read_state(name).resumable
        except DamagedCheckpointError:
            return False

    def read_state(self, name: str) -> RunState:
        """How far the run had come.

        Raises:
            DamagedCheckpointError: `state.json` cannot be read.
        """
        try:
            state = RunState.from_dict(self._read_plain(name)["state"])
            if self.name_of(state.step) != name:
                raise ValueError(f"step={state.step} is another checkpoint's")
            return state
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpointError(f"{self.directory / name / STATE_FILE}: cannot be read: {error}") from error

    def _read_plain(self, name: str) -> dict[str, Any]:
        file = self.path(name) / STATE_FILE
        try:
            plain = read_json(file)
        except (OSError, ValueError) as error:
            raise DamagedCheckpointError(f"{file}: cannot be read: {error}") from error
        if not isinstance(plain, dict):
            raise DamagedCheckpointError(f"{file}: holds {type(plain).__name__}, where a mapping is expected.")
        return plain

    def read_config(self, name: str) -> tuple[ExperimentConfig, FeatureSpec]:
        """The config and schema that it was written under."""
        folder = self.path(name)
        return ExperimentConfig.from_file(folder / CONFIG_FILE), FeatureSpec.load(folder)

    def read_versions(self, name: str) -> dict[str, str]:
        """Of tfdlrm, TensorFlow and Keras, as it was written with.

        Raises:
            DamagedCheckpointError: `state.json` cannot be read.
        """
        plain = self._read_plain(name)
        return {package: str(plain.get(package, "unknown")) for package in ("tfdlrm", "tensorflow", "keras")}

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """Every array of a checkpoint: rows, slots and pooling weights of tables, then dense variables.

        Raises:
            FileNotFoundError: there is none of that name.
            DamagedCheckpointError: a file is missing or of another size than was written.
        """
        folder = self.path(name)
        verify_folder(folder)
        return saved_model_shapes(folder)

    def verify(self, name: str) -> None:
        """Reads every byte of a checkpoint and compares it with what was written.

        Raises:
            FileNotFoundError: there is none of that name.
            DamagedCheckpointError: a file is missing, truncated or changed; names it.
        """
        folder = self.path(name)
        verify_folder(folder)
        self.read_state(name)
        verify_model_state(folder)

    def restore(self, name: str, model: keras.Model, *, weights_only: bool = False) -> RunState:
        """Reads a checkpoint into a model of the same config.

        Args:
            name: as in `names`.
            model: compiled and built.
            weights_only: leave optimizers, slots, metrics and random state as they are.

        Raises:
            FileNotFoundError: there is none of that name.
            ValueError: it is of another model; names table or variable, and both shapes.
            DamagedCheckpointError: a file is missing, truncated or changed.
        """
        folder = self.path(name)
        verify_folder(folder)
        state = self.read_state(name)
        restore_model_state(model, folder, weights_only=weights_only)
        return state

    def newest_first(self) -> Iterator[str]:
        """Names of undamaged checkpoints that training can go on from, newest first; warns of each damaged one.

        Those are renamed to `damaged-...`, so that the next run does not meet them again.
        """
        for name in reversed(self.names()):
            try:
                verify_folder(self.directory / name)
                if self.read_state(name).resumable:
                    yield name
            except DamagedCheckpointError as error:
                self.set_aside(name, error)

    def set_aside(self, name: str, error: DamagedCheckpointError) -> None:
        """Renames a damaged checkpoint, and warns."""
        older = [other for other in self.names() if other < name]
        warnings.warn(
            f"checkpoint {name} is damaged and set aside as damaged-{name}: {error} "
            + (f"Going back to {older[-1]}." if older else "There is no older one."),
            stacklevel=2,
        )
        target = self.directory / f"damaged-{name}"
        shutil.rmtree(target, ignore_errors=True)
        (self.directory / name).rename(target)
