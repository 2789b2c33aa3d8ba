"""Runs a pipeline on this machine, in this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from pipelines.csv_files import find_splits, first_bad_row
from pipelines.lineage import Run, Store, check_store, pushed_folder
from pipelines.progress import Progress
from pipelines.report import read_problems
from pipelines.tfx_extra import tfx
from tfdlrm.cli.errors import failed_assertion
from tfdlrm.files import try_lock

LOCK_FILE, LOGS = ".lock", "logs"


class PipelineError(RuntimeError):
    """A component failed; says which, why, and where its log is."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended, all of whose components did their work.

    Args:
        run: of the metadata store.
        pushed: the version's folder; None where the model was not good enough.
        problems: why not.
        logs: folder of the logs.
    """

    run: Run
    pushed: Path | None
    problems: tuple[str, ...]
    logs: Path

    def __str__(self) -> str:
        """For people: why not, or where the version is."""
        return "\n".join([*self.problems, f"pushed: {self.pushed}" if self.pushed else "not pushed"])


def run_local(pipeline: tfx.dsl.Pipeline, *, show: bool = False) -> RunResult:
    """Runs every component, each after those it takes artifacts from, and returns after the last.

    Args:
        pipeline: from `create_pipeline`, not run before.
        show: print a line a component.

    Returns:
        Whether the model was pushed.

    Raises:
        PipelineError: a component failed; what ran before it is kept and is not run again by the next run.
        RuntimeError: another process runs a pipeline with this root.

    Example:
        >>> run_local(create_pipeline(PipelineConfig.load("pipelines/config.yaml"))).pushed
        PosixPath('/clicks/serving/1796000000')
    """
    root = Path(pipeline.pipeline_info.pipeline_root)
    store = Path(pipeline.metadata_connection_config.sqlite.filename_uri)
    check_store(store)
    with _locked(root), _temporary_folder():
        if store.is_file():
            Store(store).forget_lost_pushes()
        progress = Progress(root / LOGS / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"), show=show)
        try:
            _Runner(progress).run(pipeline)
        except Exception as error:
            where = _place_in_rows(pipeline) if progress.component == "CsvExampleGen" else None
            said = where or message_of(error)
            raise PipelineError(f"{progress.component}: {said} Log: {progress.log}") from error
    run = Store(store).last_run()
    pusher = run.execution("Pusher")
    pushed = pushed_folder(pusher) if pusher else None
    return RunResult(
        run=run,
        pushed=Path(pushed) if pushed else None,
        problems=tuple(_problems(run)),
        logs=progress.folder,
    )


class _Runner(LocalDagRunner):
    """TFX's runner, which says what it does in its log only, with a line and a log a component."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def run_with_ir(self, pipeline: Any, run_options: Any = None) -> None:
        """See `LocalDagRunner`; partial runs are not known here."""
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: datetime.now(UTC).isoformat()}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        config = deployment.metadata_connection_config
        connection = getattr(config, config.WhichOneof("connection_config"))
        for node in pipeline.nodes:  # in topological order
            self._launch(node.pipeline_node, pipeline, deployment, connection)

    def _launch(self, node: Any, pipeline: Any, deployment: Any, connection: Any) -> None:
        name = node.node_info.id
        component = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=metadata.Metadata(connection),
            pipeline_info=pipeline.pipeline_info,
            pipeline_runtime_spec=pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        )
        execution: list[int] = []

        def ended() -> str:
            with metadata.Metadata(connection) as store:
                (found,) = store.store.get_executions_by_id(execution)
            return "cached" if found.last_known_state == found.CACHED else "done"

        with self._progress.of(name, ended):
            execution.append(component.launch().execution_id)


def message_of(error: BaseException) -> str:
    """What an error says, without the tracebacks and places that Beam and TensorFlow put around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = failed_assertion(str(error)) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _place_in_rows(pipeline: tfx.dsl.Pipeline) -> str | None:
    """File and line of what CsvExampleGen could not read: it names neither."""
    (generator,) = (component for component in pipeline.components if component.id == "CsvExampleGen")
    data = Path(generator.exec_properties["input_base"])
    return first_bad_row(data, find_splits(data))


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One run a root at a time: the store and the folders of artifacts are those of all runs."""
    root.mkdir(parents=True, exist_ok=True)
    lock = try_lock(root / LOCK_FILE)
    if lock is None:
        raise RuntimeError(f"{root}: another process runs a pipeline there. Wait for it, or give another root.")
    with lock:
        yield


@contextmanager
def _temporary_folder() -> Iterator[None]:
    """TFX leaves tens of megabytes a run in the temporary folder."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="tfdlrm-pipeline-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _problems(run: Run) -> Iterator[str]:
    """Why the model of a run was not pushed, by what EvaluationReport and Verifier wrote."""
    judged = run.execution("EvaluationReport")
    if judged is not None:
        yield from (f"Evaluator: {text}" for text in read_problems(Path(judged.outputs["report"][0].uri)))
    verified = run.execution("Verifier")
    if verified is not None:
        found = json.loads((Path(verified.outputs["blessing"][0].uri) / "report.json").read_text(encoding="utf-8"))
        yield from (f"Verifier: {text}" for text in found["problems"])
