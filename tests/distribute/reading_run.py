"""`python -m tests.distribute.reading_run`: workers that read prepared data for themselves, as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import tfdlrm
from tests.distribute import every_option
from tests.distribute.asynchronous_run import VOCABULARY, Counting, MinusSum, refusal
from tests.distribute.in_process import start_cluster
from tfdlrm import DLRM, CategoricalColumn, DenseColumn, DLRMConfig, FeatureSpec, optimizers
from tfdlrm.data import origins
from tfdlrm.data.epochs import ResumableInput, input_of
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import PreparedRows, prepared_dataset
from tfdlrm.data.streaming import StreamingDataset
from tfdlrm.distribute import parameter_server
from tfdlrm.distribute.fingerprint import have_rows

NUM_ROWS, BATCH_SIZE, EPOCHS = 1003, 32, 2
SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age"),),
    categorical=(
        CategoricalColumn(name="f", id_policy="error"),
        CategoricalColumn(name="tags", hotness=None, weights="times"),
    ),
    vocabulary_sizes={"f": VOCABULARY, "tags": 9},
)
PLAIN = dataclasses.replace(
    SPEC,
    dense=(),
    categorical=SPEC.categorical[:1],
    keys=("age", "tags", "times"),
    vocabulary_sizes={"f": VOCABULARY},
)


def prepare_rows(folder: Path, spec: FeatureSpec) -> Path:
    """The columns of a schema out of 1,003 rows, as prepared data in files of 100 rows."""
    random = np.random.default_rng(0)
    lines = ["click,age,f,tags,times"]
    for _ in range(NUM_ROWS):
        tags = random.integers(0, 9, random.integers(0, 4))
        times = " ".join(f"{number / 4:g}" for number in random.integers(1, 9, len(tags)))
        identifier = random.integers(0, VOCABULARY)
        lines.append(f"{identifier % 2},{random.normal():.3f},{identifier},{' '.join(map(str, tags))},{times}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    with mock.patch("tfdlrm.data.prepare.output.rows_a_file", return_value=100):
        prepare(PrepareConfig(format="csv", schema=spec), [folder / "rows.csv"], folder / "prepared")
    return folder / "prepared"


@contextlib.contextmanager
def read_rows(found: list[tuple[int, int, int]]) -> Any:
    """Records which rows are read, and lets the coordinator's own pipeline read none."""
    real = StreamingDataset.read_rows

    def recorded(self: Any, plan: Any, epoch: int, start: int, stop: int) -> Any:
        found.append((epoch, start, stop))
        return real(self, plan, epoch, start, stop)

    def refused(self: Any) -> Any:
        raise AssertionError("the coordinator reads its own batches")

    with (
        mock.patch.object(StreamingDataset, "read_rows", recorded),
        mock.patch.object(tf.data.Dataset, "__iter__", refused),
    ):
        yield


def model() -> keras.Model:
    made = DLRM(
        DLRMConfig.from_schema(SPEC, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)), optimizers.Adagrad(0.05)
    )
    made.compile(keras.optimizers.Adagrad(0.05), keras.losses.BinaryCrossentropy(from_logits=True))
    return made


def counted(rows: Path, strategy: Any, **options: Any) -> dict[str, Any]:
    """How often each id was trained on, and which rows were read, in each epoch."""
    with strategy.scope():
        counting = Counting()
        counting.compile(keras.optimizers.SGD(0.0), MinusSum())
    batches = tfdlrm.data.open(rows, BATCH_SIZE, **options)
    read: list[tuple[int, int, int]] = []
    with read_rows(read):
        counting.fit(batches, epochs=EPOCHS, shuffle=False, verbose=0)
    dataset = prepared_dataset(rows, shard=options.get("shard"))
    identifiers = np.concatenate([features["f"].numpy() for features, _ in dataset.batches(100)])
    return {
        "rows": every_option.table_arrays(counting)["t/rows"][:, 0].tolist(),
        "expected": (np.bincount(identifiers, minlength=VOCABULARY) * EPOCHS).tolist(),
        "read": sorted(read),
    }


def trained(rows: Path, scope: Any, recorder: Any) -> tuple[dict[str, np.ndarray], np.ndarray, Any]:
    """Every array, scores and loss after two epochs, shuffled, from the third batch of the first on."""
    with scope():
        made = model()
    train = ResumableInput(prepared_dataset(rows), BATCH_SIZE, seed=3, position=(0, 2))
    batches, test = train.dataset(), tfdlrm.data.open(rows, 100)
    with recorder():
        made.fit(batches, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[train.callback()])
        loss = made.evaluate(test, verbose=0)
        scores = made.predict(test, verbose=0)
    return every_option.arrays(made), scores, loss


def lost_rows(rows: Path, strategy: Any) -> str:
    """What is said where files vanish while workers train on them."""
    moved = rows.with_name("moved")

    class Move(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                rows.rename(moved)
                origins.open_origin.cache_clear()

    with strategy.scope():
        made = model()
    try:
        batches = tfdlrm.data.open(rows, BATCH_SIZE)
        return refusal(lambda: made.fit(batches, epochs=EPOCHS, verbose=0, callbacks=[Move()]))
    finally:
        moved.rename(rows)


def main(folder: Path) -> None:
    PreparedRows.block_rows, PreparedRows.shuffle_blocks = 64, 3
    rows = prepare_rows(folder, SPEC)
    alone, scores, loss = trained(rows, contextlib.nullcontext, contextlib.nullcontext)
    strategy = parameter_server(start_cluster(2, 2), min_shard_bytes=0, max_staleness=4)
    found: dict[str, Any] = {}
    (folder / "plain").mkdir()
    plain = prepare_rows(folder / "plain", PLAIN)
    for name, options in {"in order": {}, "shuffled": {"shuffle": True}, "a shard": {"shard": (1, 2)}}.items():
        found[name] = counted(plain, strategy, **options)

    strategy.options = dataclasses.replace(strategy.options, synchronous=True)
    arrays, scores_there, loss_there = trained(rows, strategy.scope, lambda: read_rows([]))
    found["difference"] = max(
        float(np.max(np.abs(arrays[name] - array)) / (np.max(np.abs(array)) or 1.0)) for name, array in alone.items()
    )
    found["scores"] = float(np.max(np.abs(scores - scores_there)))
    found["loss"] = [loss, loss_there]
    strategy.options = dataclasses.replace(strategy.options, synchronous=False)

    found["lost"] = lost_rows(rows, strategy)
    origin = origins.origin_of(prepared_dataset(rows))
    assert origin is not None
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found["nowhere"] = have_rows(
            strategy.cluster, origin.replace("prepared", "nowhere", 1).replace("/prepared", "/x")
        )
    found["said"] = said.getvalue()
    opened = tfdlrm.data.open(rows, BATCH_SIZE)
    moved = rows.rename(rows.with_name("moved"))
    with strategy.scope():
        made = model()
    found["gone"] = refusal(lambda: made.fit(opened, verbose=0))
    moved.rename(rows)
    manifest = rows / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    origins.open_origin.cache_clear()
    found["other"] = refusal(lambda: have_rows(strategy.cluster, origin))
    changed = tfdlrm.data.open(rows, BATCH_SIZE)
    assert input_of(changed) is not None
    found["derived"] = [input_of(changed.take(3)) is None, input_of(changed.map(lambda x, y: (x, y))) is None]
    shutil.rmtree(rows)
    print(json.dumps(found))


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
    sys.stdout.flush()
    os._exit(0)  # the threads of the cluster would wait for each other
