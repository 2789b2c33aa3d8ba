"""What a pipeline is made of.

CSV files --> CsvExampleGen --> StatisticsGen --> SchemaGen --> Transform --> Trainer --> Verifier --> Pusher
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.preprocessing import transform_config
from pipelines.tfx_extra import tfx
from pipelines.trainer import trainer_config
from pipelines.verifier import Verifier
from tfdlrm.config import ExperimentConfig
from tfdlrm.schema import FeatureSpec


def create_pipeline(
    name: str,
    data: str | os.PathLike[str],
    root: str | os.PathLike[str],
    spec: FeatureSpec,
    config: ExperimentConfig,
    *,
    min_count: int = 1,
    id_modulo: int | None = None,
    candidates: Sequence[str] = (),
    quantize: str = "none",
    push_to: str | os.PathLike[str] | None = None,
    cache: bool = True,
) -> tfx.dsl.Pipeline:
    """From rows to a SavedModel that servers watch for.

    Components belong to the pipeline that they are given to: make another one for another run.

    Args:
        name: of the pipeline, in the metadata store.
        data: folder of CSV files with a header line, separated by commas.
        root: folder of all artifacts, and of the metadata store, `metadata.sqlite`; made where it does not exist.
        spec: what the columns are; what it leaves open (means, deviations, sizes of tables) is learned.
        config: model and training; its `data` is not used, the rows are the pipeline's.
        min_count, id_modulo: see `pipelines.preprocessing.transform_config`.
        candidates, quantize: see `savedmodels.export.ExportOptions`.
        push_to: folder of the model's versions, which servers watch; default `<root>/serving`.
        cache: take over what an earlier run made of the same inputs.

    Raises:
        FileNotFoundError: `data` holds no file.
        ValueError: schema and options do not fit together.

    Example:
        >>> run_local(create_pipeline("clicks", "data/clicks", "runs/clicks", spec, load_config("quickstart")))
    """
    data, root = Path(data).absolute(), Path(root).absolute()
    if not data.is_dir() or not any(entry.is_file() for entry in data.iterdir()):
        raise FileNotFoundError(f"{data}: no folder with CSV files. Give one with at least one.")
    root.mkdir(parents=True, exist_ok=True)
    examples = tfx.components.CsvExampleGen(input_base=str(data))
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    # ids of a bag are as many as a row has: shapes are not inferred from the rows at hand
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=False)
    transform_settings = transform_config(spec, min_count=min_count, id_modulo=id_modulo)
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="pipelines.preprocessing.preprocessing_fn",
        custom_config=transform_settings,
    )
    trainer = tfx.components.Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        run_fn="pipelines.trainer.run_fn",
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config=trainer_config(config, transform_settings, name=name, candidates=candidates, quantize=quantize),
    )
    published = publish(trainer.outputs["model"], root / "serving" if push_to is None else Path(push_to).absolute())
    return tfx.dsl.Pipeline(
        pipeline_name=name,
        pipeline_root=str(root),
        components=[examples, statistics, schema, transform, trainer, *published],
        enable_cache=cache,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
    )


def publish(model: tfx.dsl.Channel, push_to: Path) -> list[tfx.dsl.components.BaseComponent]:
    """Verifier and Pusher: a model that answers rightly becomes the next version in a folder.

    Args:
        model: of a Trainer.
        push_to: folder of the versions, whose names are the seconds since 1970.
    """
    verifier = Verifier(model=model)
    pusher = tfx.components.Pusher(
        model=model,
        infra_blessing=verifier.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(push_to))
        ),
    )
    return [verifier, pusher]
