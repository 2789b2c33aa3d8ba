"""What the metadata store says: runs, their executions and artifacts, and what a pushed model was made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as proto

from pipelines.tfx_extra import mlmd

_SQLITE = b"SQLite format 3\0"
_INPUT_EVENTS = (proto.Event.INPUT, proto.Event.DECLARED_INPUT)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact.

    Args:
        id: in the store.
        kind: its type, as in `Model`.
        uri: its folder.
        properties: what TFX and the components say of it.
    """

    id: int
    kind: str
    uri: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a component did in a run.

    Args:
        id: in the store; the last part of the paths of its artifacts.
        component: node of the pipeline.
        is_resolver: whether it only looks artifacts up; it does so in every run.
        state: `COMPLETE`, `CACHED`, `FAILED`, or `UNFINISHED`: it runs still, or its process was interrupted.
        began: UTC.
        seconds: from the beginning to the last word of it.
        properties: its parameters.
        inputs, outputs: key -> artifacts.
    """

    id: int
    component: str
    is_resolver: bool
    state: str
    began: datetime
    seconds: float
    properties: Mapping[str, Any]
    inputs: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of the pipeline.

    Args:
        name: of its context in the store.
        began: UTC.
        executions: in order.
    """

    name: str
    began: datetime
    executions: tuple[Execution, ...]

    def execution(self, component: str) -> Execution | None:
        """The one of a component; None where the run did not come to it."""
        return next((each for each in self.executions if each.component == component), None)

    @property
    def model(self) -> Artifact | None:
        """What it trained, or took from the cache."""
        trained = self.execution("Trainer")
        return next(iter(trained.outputs.get("model", ())), None) if trained else None

    @property
    def state(self) -> str:
        """`pushed`, `not pushed`, or the component that it ended with."""
        for each in self.executions:
            if each.state in ("FAILED", "UNFINISHED"):
                return f"{each.component} {each.state.lower()}"
        pusher = self.execution("Pusher")
        return "ended before Pusher" if pusher is None else ("pushed" if pushed_folder(pusher) else "not pushed")


def pushed_folder(pusher: Execution) -> str | None:
    """Where a Pusher put the model; None where it did not push."""
    for pushed in pusher.outputs.get("pushed_model", ()):
        if pushed.properties.get("pushed"):
            return str(pushed.properties["pushed_destination"])
    return None


def check_store(file: Path) -> None:
    """Refuses a file that is no SQLite database; one that is not there yet is made by the run.

    Raises:
        ValueError: it is another file.
    """
    if file.is_file() and file.stat().st_size:
        with file.open("rb") as stream:
            if stream.read(len(_SQLITE)) != _SQLITE:
                raise ValueError(
                    f"{file}: damaged, or no metadata store. Move it away: the next run begins a new one, and takes "
                    "nothing from the cache; the artifacts stay."
                )


class Store:
    """A metadata store in SQLite.

    Args:
        file: the store.

    Raises:
        FileNotFoundError: there is none.

    Example:
        >>> [run.state for run in Store(Path("runs/clicks/metadata.sqlite")).runs()]
        ['pushed', 'ExampleGate failed']
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no metadata store there. Run the pipeline first.")
        check_store(file)
        config = proto.ConnectionConfig()
        config.sqlite.filename_uri = str(file)
        config.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READONLY
        self._store = mlmd.MetadataStore(config)
        self._artifacts = {artifact.id: _artifact(artifact) for artifact in self._store.get_artifacts()}

    def runs(self) -> list[Run]:
        """All runs, the first one first."""
        return [self._run(context) for context in self._run_contexts()]

    def last_run(self) -> Run:
        """The last of them, without looking at the others."""
        return self._run(self._run_contexts()[-1])

    def forget_lost_pushes(self) -> None:
        """Where a version is no longer in the folder of servers, its Pusher is no cache hit any more."""
        for artifact in self._artifacts.values():
            destination = artifact.properties.get("pushed_destination")
            if artifact.kind == "PushedModel" and destination and not Path(destination).is_dir():
                shutil.rmtree(artifact.uri, ignore_errors=True)

    def producer(self, artifact: Artifact) -> Execution:
        """The execution that made an artifact, rather than took it from the cache."""
        ids = sorted(
            event.execution_id
            for event in self._store.get_events_by_artifact_ids([artifact.id])
            if event.type == proto.Event.OUTPUT
        )
        (execution,) = self._store.get_executions_by_id(ids[:1])
        return self._execution(execution)

    def _run_contexts(self) -> list[Any]:
        return sorted(self._store.get_contexts_by_type("pipeline_run"), key=lambda each: each.id)

    def _run(self, context: Any) -> Run:
        return Run(
            name=context.name,
            began=datetime.fromtimestamp(context.create_time_since_epoch / 1000, UTC),
            executions=tuple(self._executions(context.id)),
        )

    def _executions(self, context: int) -> Iterator[Execution]:
        for execution in sorted(self._store.get_executions_by_context(context), key=lambda each: each.id):
            yield self._execution(execution)

    def _execution(self, execution: Any) -> Execution:
        nodes = [each for each in self._store.get_contexts_by_execution(execution.id) if each.type == "node"]
        inputs: dict[str, list[Artifact]] = {}
        outputs: dict[str, list[Artifact]] = {}
        for event in self._store.get_events_by_execution_ids([execution.id]):
            side = inputs if event.type in _INPUT_EVENTS else outputs
            side.setdefault(event.path.steps[0].key, []).append(self._artifacts[event.artifact_id])
        state = proto.Execution.State.Name(execution.last_known_state)
        milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        return Execution(
            id=execution.id,
            component=nodes[0].name.partition(".")[2] if nodes else execution.type,
            is_resolver=execution.type.endswith(".Resolver"),
            state=state if state != "RUNNING" else "UNFINISHED",
            began=datetime.fromtimestamp(execution.create_time_since_epoch / 1000, UTC),
            seconds=milliseconds / 1000,
            properties=_values(execution.custom_properties),
            inputs={key: tuple(found) for key, found in inputs.items()},
            outputs={key: tuple(found) for key, found in outputs.items()},
        )


def lineage(store: Store, run: Run) -> dict[str, str]:
    """What the model of a run was made of.

    Args:
        store: of the run.
        run: that came to a model.

    Returns:
        `model`, `pushed to`, `rows`, `fingerprint of the rows`, `schema`, `code`, `config`, `parent`: the model that
        it was compared with.

    Raises:
        ValueError: the run came to no model.
    """
    if run.model is None:
        raise ValueError(f"run {run.name}: it came to no model ({run.state}).")
    model = run.model
    trainer = store.producer(model)
    generator = store.producer(_examples_of(store, trainer))
    (examples,) = generator.outputs["examples"]
    settings = json.loads(trainer.properties["custom_config"])
    pusher, evaluator = run.execution("Pusher"), run.execution("Evaluator")
    found = {
        "model": model.uri,
        "pushed to": (pushed_folder(pusher) if pusher else None) or "nowhere",
        "rows": str(generator.properties["input_base"]),
        "fingerprint of the rows": str(examples.properties.get("input_fingerprint", "")),
        "schema": trainer.inputs["schema"][0].uri,
        "code": str(settings.get("code", "not recorded")),
        "config": str(Path(trainer.outputs["model_run"][0].uri) / "config.yaml"),
        "parent": "none: the first that was judged",
    }
    if evaluator is None:
        found["parent"] = "not judged"
    elif evaluator.inputs.get("baseline_model"):
        found["parent"] = evaluator.inputs["baseline_model"][0].uri
    return found


def _examples_of(store: Store, trainer: Execution) -> Artifact:
    """The raw examples behind the transformed ones."""
    transform = store.producer(trainer.inputs["examples"][0])
    return transform.inputs["examples"][0]


def _artifact(artifact: Any) -> Artifact:
    properties = _values(artifact.properties) | _values(artifact.custom_properties)
    return Artifact(id=artifact.id, kind=artifact.type, uri=artifact.uri, properties=properties)


def _values(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("value")) for name, value in properties.items()}
