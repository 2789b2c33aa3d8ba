"""What a pipeline is made of.

CSV files --> CsvExampleGen --> StatisticsGen --> SchemaGen, or ImportSchemaGen --> ExampleValidator --> ExampleReport
--> ExampleGate --> Transform --> Trainer --> Evaluator --> EvaluationReport --> Verifier --> Pusher
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base.base_node import BaseNode

from pipelines import source_code
from pipelines.artifacts import CURRENT_MODEL, CURRENT_STATISTICS, ExamplesBlessing, latest_blessed
from pipelines.config import PipelineConfig
from pipelines.csv_files import EVAL, TEST, check_headers, find_splits
from pipelines.evaluation import EvaluationReport, eval_config
from pipelines.example_report import ExampleGate, ExampleReport
from pipelines.preprocessing import transform_config
from pipelines.pusher import Pusher
from pipelines.tfx_extra import tfx
from pipelines.trainer import trainer_config
from pipelines.verifier import Verifier
from tfdlrm.files import atomic_path


def create_pipeline(config: PipelineConfig, *, cache: bool = True) -> tfx.dsl.Pipeline:
    """From rows to a SavedModel that servers watch for.

    Components belong to the pipeline that they are given to: make another one for another run.

    Args:
        config: every parameter.
        cache: take over what an earlier run made of the same inputs; code is one of them.

    Raises:
        FileNotFoundError: there is no row, or no curated schema.
        ValueError: schema and options do not fit together, or a header is not one that CsvExampleGen takes rightly.
        OSError: `root` cannot be made.

    Example:
        >>> run_local(PipelineConfig.load("pipelines/config.yaml"))
    """
    data, root = Path(config.data).absolute(), Path(config.root).absolute()
    splits = find_splits(data)
    check_headers(data, splits, config.schema if config.examples.schema is None else None)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"root cannot be this folder: {error.strerror}", str(root)) from error
    patterns = [tfx.proto.Input.Split(name=name, pattern=pattern) for name, pattern in splits.items()]
    example_gen = tfx.components.CsvExampleGen(input_base=str(data), input_config=tfx.proto.Input(splits=patterns))
    examples = example_gen.outputs["examples"]
    schema, validation = _validate(config, examples)
    transform_settings = transform_config(config.schema, min_count=config.min_count, id_modulo=config.id_modulo)
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="pipelines.preprocessing.preprocessing_fn",
        custom_config={**transform_settings, "code": source_code.fingerprint()},
    )
    transform.add_upstream_node(validation[-1])
    trainer = tfx.components.Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        run_fn="pipelines.trainer.run_fn",
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config={**trainer_config(config, transform_settings), "code": source_code.fingerprint()},
    )
    judge = _judge(config, examples, trainer.outputs["model"], TEST if TEST in splits else EVAL)
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(root),
        components=[example_gen, *validation, transform, trainer, *judge],
        enable_cache=cache,
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(str(config.store)),
    )


def _validate(config: PipelineConfig, examples: Any) -> tuple[Any, list[BaseNode]]:
    """The schema of the examples, and the components that stop a run whose examples are not as they should be."""
    generator = tfx.components.StatisticsGen(examples=examples)
    statistics = generator.outputs["statistics"]
    if config.examples.schema is None:
        # ids of a bag are as many as a row has: shapes are not inferred from the rows at hand
        schema_gen = tfx.components.SchemaGen(statistics=statistics, infer_feature_shape=False)
    else:
        schema_gen = tfx.components.ImportSchemaGen(schema_file=str(_kept_schema(config)))
    schema = schema_gen.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics, schema=schema)
    accepted = latest_blessed(
        statistics,
        tfx.types.standard_artifacts.ExampleStatistics,
        ExamplesBlessing,
        of=CURRENT_STATISTICS,
        name="LatestAcceptedExamples",
    )
    report = ExampleReport(
        statistics=statistics,
        anomalies=validator.outputs["anomalies"],
        examples=examples,
        baseline=accepted.outputs["baseline"],
        columns=json.dumps({"label": config.schema.label, "dense": [column.name for column in config.schema.dense]}),
        settings=json.dumps(config.examples.to_dict()),
    )
    gate = ExampleGate(statistics=statistics, report=report.outputs["report"])
    return schema, [generator, schema_gen, validator, accepted, report, gate]


def _kept_schema(config: PipelineConfig) -> Path:
    """A copy of the curated schema, named by its content: TFX knows the file by its name only, and changed or not."""
    file = Path(str(config.examples.schema)).absolute()
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no schema there. Run the pipeline with examples.schema: null once, and copy the schema.pbtxt of "
            "SchemaGen there."
        )
    content = file.read_bytes()
    try:
        text_format.Parse(content, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise ValueError(f"{file}: line {error}. Give a schema of tensorflow_metadata as text.") from error
    kept = Path(config.root).absolute() / "schemas" / hashlib.sha256(content).hexdigest()[:12] / "schema.pbtxt"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as partial:
            partial.write_bytes(content)
    return kept


def _judge(config: PipelineConfig, examples: Any, model: Any, split: str) -> list[BaseNode]:
    """The components that let a model be pushed: good enough on a split, no worse than the last, answering rightly."""
    latest = latest_blessed(
        model,
        tfx.types.standard_artifacts.Model,
        tfx.types.standard_artifacts.ModelBlessing,
        of=CURRENT_MODEL,
        name="LatestBlessedModel",
    )
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=model,
        baseline_model=latest.outputs["baseline"],
        example_splits=[split],
        eval_config=eval_config(config.schema.label, config.evaluation),
    )
    report = EvaluationReport(
        evaluation=evaluator.outputs["evaluation"], settings=json.dumps(config.evaluation.to_dict())
    )
    return [latest, evaluator, report, *publish(model, evaluator.outputs["blessing"], config.serving)]


def publish(model: Any, blessing: Any, push_to: Path) -> list[BaseNode]:
    """Verifier and Pusher: a blessed model that answers rightly becomes the next version in a folder.

    Args:
        model: of a Trainer.
        blessing: of an Evaluator.
        push_to: folder of the versions, whose names are the seconds since 1970.
    """
    verifier = Verifier(model=model)
    pusher = Pusher(
        model=model,
        model_blessing=blessing,
        infra_blessing=verifier.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(push_to))
        ),
    )
    return [verifier, pusher]
