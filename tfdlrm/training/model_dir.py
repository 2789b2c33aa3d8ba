"""ModelDir: where everything of one run lies, and how a trained model is read back."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from tfdlrm.config import ExperimentConfig
from tfdlrm.data.preprocessing import PREPROCESSING_DIRECTORY
from tfdlrm.files import read_json, try_lock
from tfdlrm.schema import FeatureSpec
from tfdlrm.training.background import BACKGROUND_FILE
from tfdlrm.training.build import build_model
from tfdlrm.training.checkpoint_folder import tidy, write_file
from tfdlrm.training.checkpoints import CONFIG_FILE, Checkpoints
from tfdlrm.training.run_state import BestModel

if TYPE_CHECKING:
    from tfdlrm.data.preprocessing import Preprocessing

LOCK_FILE = ".lock"


class ModelDir:
    """A folder with all of one run:

        config.yaml           the whole config, defaults included
        schema.yaml           the columns, every number known
        preprocessing/        statistics and vocabularies: encodes later files as the training rows were
        background.npz        what training rows look like, column by column; see `training.background`
        checkpoints/          step-000001200/ ...
        best.json             which of them is the best, by which metric
        history.csv           a line an epoch
        logs/                 TensorBoard
        quarantine.tsv        rows set aside

    Args:
        path: of the folder; made when something is written.

    Example:
        >>> model, config, spec = ModelDir("runs/kaggle").load_model("best")
        >>> model.predict_probability(batches)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / CONFIG_FILE
        self.preprocessing = self.path / PREPROCESSING_DIRECTORY
        self.background_file = self.path / BACKGROUND_FILE
        self.checkpoints_path = self.path / "checkpoints"
        self.best_file = self.path / "best.json"
        self.history_file = self.path / "history.csv"
        self.logs = self.path / "logs"

    def checkpoints(self, keep: int = 1) -> Checkpoints:
        """The checkpoints; `keep` matters to who writes them.

        Raises:
            ValueError: a link stands in the folder's place: only this folder is locked, and not what it leads to.
        """
        if self.checkpoints_path.is_symlink():
            raise ValueError(f"{self.checkpoints_path}: is a link. Put the folder itself there.")
        return Checkpoints(self.checkpoints_path, keep)

    def save_config(self, config: ExperimentConfig, spec: FeatureSpec, preprocessing: Preprocessing | None) -> None:
        """Writes config, schema and, unless None, preprocessing.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if preprocessing is not None:
            self.preprocessing.mkdir(exist_ok=True)
            preprocessing.save(self.preprocessing)
        spec.save(self.path)
        write_file(self.config_file, config.to_yaml())

    def has_begun(self) -> bool:
        """Whether a run wrote its config here, and no checkpoint that was found damaged later."""
        return self.config_file.is_file() and not any(self.checkpoints().directory.glob("damaged-*"))

    def load_config(self) -> ExperimentConfig:
        """The config of the run.

        Raises:
            FileNotFoundError: the folder holds no run.
            ValueError: the file is not a valid config; names file and key.
        """
        if not self.config_file.is_file():
            raise FileNotFoundError(f"{self.config_file}: no run there. Give the --model-dir of a training run.")
        return ExperimentConfig.from_file(self.config_file)

    def save_best(self, best: BestModel | None) -> None:
        """Writes `best.json`; removes it where there is no best epoch yet."""
        if best is None:
            self.best_file.unlink(missing_ok=True)
        else:
            write_file(self.best_file, json.dumps(asdict(best), indent=1))

    def read_best(self) -> dict[str, Any] | None:
        """Step, epoch, monitor, value and checkpoint of the best epoch; None before the first.

        Raises:
            ValueError: the file is damaged; names it.
        """
        if not self.best_file.is_file():
            return None
        found = read_json(self.best_file)
        try:
            return asdict(BestModel.from_dict(found))
        except ValueError as error:
            raise ValueError(f"{self.best_file}: not what a run writes ({error}). Restore the file.") from error

    def checkpoint_name(self, checkpoint: str = "best") -> str:
        """`best` and `latest` resolved to a checkpoint's name.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        names = self.checkpoints().names()
        if checkpoint == "latest":
            if not names:
                raise FileNotFoundError(f"{self.checkpoints_path}: no checkpoint there. Train first.")
            return names[-1]
        if checkpoint == "best":
            best = self.read_best()
            if best is None:
                raise FileNotFoundError(
                    f"{self.best_file}: no epoch of this run was completed and measured (AUC needs labels of both "
                    f"kinds in the validation part). Use checkpoint 'latest'{'' if names else ' after training'}."
                )
            return str(best["checkpoint"])
        return checkpoint

    def load_model(
        self, checkpoint: str = "best", *, weights_only: bool = False
    ) -> tuple[keras.Model, ExperimentConfig, FeatureSpec]:
        """A model of this run, compiled, with a checkpoint's numbers.

        Args:
            checkpoint: "best", "latest" or a name such as "step-000001200".
            weights_only: read no optimizer state: enough to evaluate, predict and export, not to train on.

        Returns:
            The model, the config and the schema that the checkpoint was written under.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            DamagedCheckpointError: a file of it is missing, truncated or changed.
        """
        name = self.checkpoint_name(checkpoint)
        checkpoints = self.checkpoints()
        config, spec = checkpoints.read_config(name)
        model = build_model(config, spec)
        checkpoints.restore(name, model, weights_only=weights_only)
        return model, config, spec

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one training process; the system lets go of it when the process dies, however it does.

        What a process that was killed had left half written is removed.

        Raises:
            RuntimeError: another process is training here.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path / LOCK_FILE)
        if lock is None:
            raise RuntimeError(
                f"{self.path}: another process is training here. Wait for it, or give another --model-dir."
            )
        with lock:
            tidy(self.path)
            self.checkpoints().tidy()
            yield
