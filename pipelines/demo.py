"""`make demo-tfx`: generated rows in the shape of Criteo's through the pipeline, and what stops a bad run.

python -m pipelines.demo pipelines/config.yaml
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.config import PipelineConfig
from pipelines.evaluation import CANDIDATE, read_metrics
from pipelines.lineage import Store, lineage
from pipelines.pipeline import create_pipeline
from pipelines.preprocessing import read_preprocessing, transform_config
from pipelines.run_local import PipelineError, RunResult, run_local
from pipelines.tfx_extra import tft
from pipelines.transform_encoder import TransformEncoder
from savedmodels.client import GrpcClient
from tfdlrm.config import SyntheticConfig, preset
from tfdlrm.data.polars_extra import pl
from tfdlrm.data.synth.write import write_synthetic
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.training.demo import MARKER
from tfdlrm.training.model_dir import ModelDir

_QUICKSTART = preset("quickstart").data.synthetic
assert _QUICKSTART is not None
# small tables, so that few rows are enough
ROWS = replace(
    _QUICKSTART,
    num_rows=100_000,
    vocabulary_sizes=tuple(min(size, 12) for size in _QUICKSTART.vocabulary_sizes),
    power_law_exponent=1.4,
    teacher_scale=4.0,
)
LARGEST_AUC_GAP = 0.01
LARGEST_CACHED_SECONDS = 60.0
LARGEST_DIFFERENCE = 1e-6
TEACHER = "teacher_probability"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; exit code 1 where it came out otherwise than it should."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="pipelines/config.yaml")
    parser.add_argument("--rows", type=int, default=ROWS.num_rows, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    config = PipelineConfig.load(arguments.config)
    checks = list(_demo(config, replace(ROWS, num_rows=arguments.rows)))
    for name, holds in checks:
        print(f"{'ok' if holds else 'FAILED'}: {name}")
    return 0 if all(holds for _, holds in checks) else 1


def _demo(config: PipelineConfig, rows: SyntheticConfig) -> Iterator[tuple[str, bool]]:
    """What is said of the pipeline -> whether it holds."""
    _empty(Path(config.root), Path(config.data))
    print(f"{rows.num_rows:,} rows into {config.data}")
    write_synthetic(rows, config.data, file_format="csv", replace=True)
    first = _run(config, "rows to a pushed model")
    model, teacher = _auc(config, first)
    print(f"AUC on the rows for evaluation: model {model:.6f}, teacher (the best possible) {teacher:.6f}")
    yield f"AUC within {LARGEST_AUC_GAP} of the best possible", teacher - model <= LARGEST_AUC_GAP
    yield "the model is pushed", first.pushed is not None
    if first.pushed is None:
        return
    for name, value in lineage(Store(config.store), first.run).items():
        print(f"  {name:<24} {value}")
    difference = abs(_served(config, first) - _live(config, first))
    yield "`tfdlrm serve` answers from the pushed folder as the live model does", difference <= LARGEST_DIFFERENCE

    began = time.monotonic()
    second = _run(config, "the same again")
    seconds = time.monotonic() - began
    cached = all(each.state == "CACHED" for each in second.run.executions if not each.is_resolver)
    yield f"a second run is all cache hits, {seconds:.1f} s", cached and seconds < LARGEST_CACHED_SECONDS

    print("\nspoiled rows: int_3 holds text, and cat_5 is gone; against the schema of the first run")
    spoiled = _spoil(Path(config.data), Path(config.root) / "spoiled")
    (schema,) = Path(config.root).glob("SchemaGen/schema/*/schema.pbtxt")
    curated = replace(config, data=str(spoiled), examples=replace(config.examples, schema=str(schema)))
    try:
        run_local(create_pipeline(curated), show=True)
        message = ""
    except PipelineError as error:
        message = str(error)
        print(message)
    yield "spoiled rows are stopped, their anomalies named", all(part in message for part in ("int_3", "cat_5"))

    worse = replace(config, train=replace(config.train, epochs=1, learning_rate=1e-5))
    third = _run(worse, "a model that was hardly trained")
    yield "a worse model is not blessed and not pushed", third.pushed is None and bool(third.problems)
    yield "one version is in the folder for servers", len(list(config.serving.iterdir())) == 1


def _empty(root: Path, data: Path) -> None:
    """Removes what the demo before left, and nothing else."""
    for folder in (root, data):
        if folder.exists() and any(folder.iterdir()) and not (root / MARKER).is_file():
            raise FileExistsError(f"{folder}: holds files that are not the demo's. Give a config with other folders.")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / MARKER).write_text("written by `make demo-tfx`, which empties this folder when it runs again\n", "utf-8")


def _run(config: PipelineConfig, what: str) -> RunResult:
    print(f"\n{what}")
    result = run_local(create_pipeline(config), show=True)
    print(result)
    return result


def _examples(run: RunResult) -> tf.data.Dataset:
    """Raw examples for evaluation, serialized."""
    files = sorted(_artifact(run, "CsvExampleGen", "examples").glob("Split-eval/*.gz"))
    return tf.data.TFRecordDataset([str(file) for file in files], "GZIP")


def _auc(config: PipelineConfig, run: RunResult) -> tuple[float, float]:
    """Of the model, as TFMA has it, and of the teacher, on the rows for evaluation."""
    label = config.schema.label
    spec = {label: tf.io.FixedLenFeature([], tf.int64), TEACHER: tf.io.FixedLenFeature([], tf.float32)}
    labels, probabilities = [], []
    for batch in _examples(run).batch(4096):
        parsed = tf.io.parse_example(batch, spec)
        labels.append(parsed[label].numpy())
        probabilities.append(parsed[TEACHER].numpy())
    best = evaluate_arrays(np.concatenate(labels), np.concatenate(probabilities), from_logits=False)
    return read_metrics(str(_artifact(run, "Evaluator", "evaluation")))[CANDIDATE]["all rows"]["auc"], best["auc"]


def _artifact(run: RunResult, component: str, key: str) -> Path:
    execution = run.run.execution(component)
    assert execution is not None
    (artifact,) = execution.outputs[key]
    return Path(artifact.uri)


def _live(config: PipelineConfig, run: RunResult) -> float:
    """The live model's probability of the first row for evaluation."""
    output = tft.TFTransformOutput(str(_artifact(run, "Transform", "transform_graph")))
    settings = transform_config(config.schema, min_count=config.min_count, id_modulo=config.id_modulo)
    encoder = TransformEncoder(output, read_preprocessing(output, settings))
    model, _, _ = ModelDir(_artifact(run, "Trainer", "model_run")).load_model()
    features = encoder.encode_examples(tf.constant([_first_example(run)]), ())
    return float(model.probability(model(features, training=False))[0, 0])


def _first_example(run: RunResult) -> bytes:
    return next(iter(_examples(run).take(1))).numpy()


def _served(config: PipelineConfig, run: RunResult) -> float:
    """The same by `tfdlrm serve`, from the folder that was pushed to."""
    command = [sys.executable, "-m", "tfdlrm", "serve", str(config.serving), "--name", config.name]
    print(f"\n$ tfdlrm {' '.join(command[3:])}")
    server = subprocess.Popen(
        [*command, "--grpc-port", "0", "--rest-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = ""
        for line in server.stdout:
            address = line.removeprefix("gRPC: ").strip() if line.startswith("gRPC: ") else address
            if line.startswith("ready"):
                break
        else:
            raise RuntimeError("tfdlrm serve: it ended before it was ready.")
        with GrpcClient(address, config.name) as client:
            found = float(client.predict_examples([_first_example(run)])["probability"][0, 0])
    finally:
        server.terminate()
        server.communicate()
    print(f"probability of the first row for evaluation: {found:.8f}")
    return found


def _spoil(source: Path, folder: Path) -> Path:
    """The rows without one column, and with text in another."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.csv"):
        rows = pl.read_csv(file).drop("cat_5").with_columns(int_3=pl.format("about {}", pl.col("int_3")))
        rows.write_csv(folder / file.name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
