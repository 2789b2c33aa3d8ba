"""`run_fn` of TFX's Trainer: trains as `tfdlrm train` does, and exports with the graph of Transform inside.

    Trainer(..., run_fn="pipelines.trainer.run_fn", custom_config=trainer_config(config, transform))

The component's folder of the run is a `--model-dir`, with config, checkpoints, the best of them, history, TensorBoard's
logs, and the rows under `data/`: `tfdlrm evaluate` and `predict` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config import PipelineConfig
from pipelines.preprocessing import read_preprocessing
from pipelines.tfx_extra import tft, tfx
from pipelines.transform_encoder import TransformEncoder
from pipelines.transformed_rows import write_prepared
from savedmodels.export import ExportOptions, write_version
from tfdlrm.config import DataConfig, ExperimentConfig
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import train

EXPERIMENT, TRANSFORM, CANDIDATES, QUANTIZE, NAME = "experiment", "transform", "candidates", "quantize", "name"


def trainer_config(config: PipelineConfig, transform: Mapping[str, Any]) -> dict[str, Any]:
    """The `custom_config` of Trainer.

    Args:
        config: of the pipeline.
        transform: the `custom_config` of Transform.
    """
    return {
        EXPERIMENT: config.experiment.to_dict(),
        TRANSFORM: dict(transform),
        NAME: config.name,
        CANDIDATES: list(config.candidates),
        QUANTIZE: config.quantize,
    }


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Called by Trainer.

    Args:
        fn_args: files, folders, and `custom_config` from `trainer_config`.

    Raises:
        ValueError, OSError: of the config, the rows, or the training; see `tfdlrm.training.run.train`.
        RuntimeError: training was stopped by a signal.
    """
    settings = fn_args.custom_config
    output = tft.TFTransformOutput(fn_args.transform_graph_path)
    preprocessing = read_preprocessing(output, settings[TRANSFORM])
    directory = ModelDir(fn_args.model_run_dir)
    parts = {"train": fn_args.train_files, "validation": fn_args.eval_files}
    data = write_prepared(directory.path / "data", parts, output, preprocessing)
    config = replace(
        ExperimentConfig.from_dict(settings[EXPERIMENT]), data=DataConfig(format="prepared", path=str(data))
    )
    result = train(config, directory.path)
    if result.interrupted_by is not None:
        raise RuntimeError(f"Trainer: stopped by {result.interrupted_by}. Run the pipeline again.")
    best = result.best or {}
    options = ExportOptions(
        quantize=settings[QUANTIZE],
        candidates=tuple(settings[CANDIDATES]),
        model_name=settings[NAME],
        metrics={best["monitor"]: best["value"]} if best else {},
    )
    folder = Path(fn_args.serving_model_dir)
    # Pusher numbers it
    write_version(folder, None, result.model, encoder=TransformEncoder(output, preprocessing), options=options)
