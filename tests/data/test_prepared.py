"""Reading prepared data: each row once an epoch, in an order that (seed, epoch) tell, from any place, in any shards."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfdlrm.data
from tests.data import sample_rows as sample
from tests.devices import two_devices
from tfdlrm.config import DataConfig
from tfdlrm.data import open_dataset, open_rows
from tfdlrm.data import prepared as module
from tfdlrm.data.columns import Columns
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import prepared_dataset, shard_bounds
from tfdlrm.data.prepared_folders import read_manifest

ROWS = sample.sample_rows(500)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 rows of every kind in three parts, in files of 64 rows."""
    base = tmp_path_factory.mktemp("prepared")
    path = sample.write_csv(base / "rows.csv", ROWS)
    config = PrepareConfig(format="csv", schema=sample.SPEC, split="time", train_fraction=0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdlrm.data.prepare.output.rows_a_file", lambda _encoder, _codes: 64)
        prepare(config, [path], base / "out", bad_rows="quarantine")
    return base / "out"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.PreparedRows, "block_rows", 16)
    monkeypatch.setattr(module.PreparedRows, "shuffle_blocks", 3)


def _row_ids(dataset: tfdlrm.data.Dataset, **options: object) -> list[int]:
    batches = dataset.batches(7, with_keys=True, **options)  # type: ignore[arg-type]
    return [int(number) for _, _, keys in batches for number in keys["row_id"].numpy()]


def test_files_and_blocks_do_not_show(folder: Path) -> None:
    opened = open_dataset(
        DataConfig(
            format="csv", path=str(folder.parent / "rows.csv"), schema=sample.SPEC, split="time", train_fraction=0.7
        ),
        bad_rows="quarantine",
    )
    assert len(read_manifest(folder)["parts"]["train"]["files"]) == 6
    for part, expected in opened.parts.items():
        dataset = prepared_dataset(folder, part)
        sample.assert_same_columns(dataset.source.read_blocks(range(dataset.num_blocks)), expected.columns)
        for (found, _), (wanted, _) in zip(dataset.batches(7), expected.batches(7), strict=True):
            tf.nest.map_structure(
                lambda one, other: np.testing.assert_array_equal(one, other),
                tf.nest.flatten(found, expand_composites=True),
                tf.nest.flatten(wanted, expand_composites=True),
            )


def test_an_epoch_has_every_row_once_and_no_order_twice(folder: Path) -> None:
    dataset = prepared_dataset(folder)
    orders = [_row_ids(dataset, shuffle=True, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    every = sorted(_row_ids(dataset))
    for order in orders:
        assert sorted(order) == every
        assert order != every
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] == _row_ids(dataset, shuffle=True, seed=1, epoch=0)


def test_going_on_at_any_batch(folder: Path) -> None:
    dataset = prepared_dataset(folder)
    whole = _row_ids(dataset, shuffle=True, seed=3, epoch=2)
    for start in (0, 1, 6, 20, dataset.num_batches(7) - 1, dataset.num_batches(7)):
        assert _row_ids(dataset, shuffle=True, seed=3, epoch=2, start_batch=start) == whole[7 * start :]


@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_cover_each_row_once(folder: Path, shuffle: bool) -> None:
    every = sorted(_row_ids(prepared_dataset(folder)))
    for count in (1, 2, 3, 7):
        shards = [_row_ids(prepared_dataset(folder, shard=(i, count)), shuffle=shuffle) for i in range(count)]
        assert sorted(number for shard in shards for number in shard) == every
        sizes = [len(shard) for shard in shards]
        assert max(sizes) - min(sizes) <= 1


@given(num_rows=st.integers(1, 2**40), count=st.integers(1, 64))
def test_shard_bounds(num_rows: int, count: int) -> None:
    if num_rows < count:
        with pytest.raises(ValueError, match="cannot be divided so"):
            shard_bounds(num_rows, (0, count))
        return
    bounds = [shard_bounds(num_rows, (index, count)) for index in range(count)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_rows
    assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))


def test_a_shuffled_window_mixes_rows_from_all_over(folder: Path) -> None:
    order = np.array(_row_ids(prepared_dataset(folder), shuffle=True, seed=0))
    first_window = order[: 3 * 16]
    assert first_window.max() - first_window.min() > 150
    assert (np.diff(order) == 1).mean() < 0.1


def test_open_gives_epoch_after_epoch(folder: Path) -> None:
    batches = tfdlrm.data.open(folder, 32, shuffle=True, seed=5)
    assert int(batches.cardinality()) == prepared_dataset(folder).num_batches(32)
    epochs = [[features["dense"].numpy() for features, _ in batches] for _ in range(2)]
    dataset = prepared_dataset(folder)
    for epoch, found in enumerate(epochs):
        expected = dataset.batches(32, shuffle=True, seed=5, epoch=epoch)
        for one, (features, _) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, features["dense"])
    later = next(iter(tfdlrm.data.open(folder, 32, shuffle=True, seed=5, epoch=1, start_batch=2)))
    np.testing.assert_array_equal(later[0]["dense"], epochs[1][2])
    assert all(len(labels) == 32 for _, labels in tfdlrm.data.open(folder, 32, drop_remainder=True))


def _model() -> keras.Model:
    inputs = keras.Input([4], name="dense")
    model = keras.Model({"dense": inputs}, keras.layers.Dense(1, activation="sigmoid", name="probability")(inputs))
    model.compile("sgd", "binary_crossentropy")
    return model


def _dense_only(features: dict, labels: tf.Tensor) -> tuple:
    return {"dense": features["dense"]}, labels[:, :1]


def test_fit_reads_it(folder: Path) -> None:
    model = _model()
    batches = tfdlrm.data.open(folder, 64, shuffle=True)
    history = model.fit(batches.map(_dense_only), epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["loss"]).all()


def test_under_a_strategy_with_an_input_context(folder: Path) -> None:
    strategy = two_devices()

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return tfdlrm.data.open(folder, context.get_per_replica_batch_size(64), shard=context).map(
            lambda features, labels: labels
        )

    distributed = strategy.distribute_datasets_from_function(batches)
    rows = sum(len(one) for each in distributed for one in strategy.experimental_local_results(each))
    assert rows == prepared_dataset(folder).num_rows


def test_a_config_reads_it(folder: Path) -> None:
    splits = open_dataset(DataConfig(format="prepared", path=str(folder)))
    assert list(splits.parts) == ["train", "validation", "test"]
    some = open_dataset(DataConfig(format="prepared", path=str(folder), max_rows=50))
    assert some.train.num_rows == 50
    for option in ({"split": "time"}, {"schema": sample.SPEC}, {"id_modulo": 5}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}=.* has no meaning with format='prepared'"):
            open_dataset(DataConfig(format="prepared", path=str(folder), **option))
    test = open_rows(DataConfig(format="prepared"), folder, splits.preprocessing)
    assert test.num_rows == splits.parts["test"].num_rows
    named = open_rows(DataConfig(format="prepared"), folder / "validation", splits.preprocessing)
    assert named.num_rows == splits.parts["validation"].num_rows


def _copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_what_is_wrong_with_a_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no prepared data there. Make them: tfdlrm data prepare"):
        prepared_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"has no 'training' part, but train, validation, test"):
        prepared_dataset(folder, "training")
    with pytest.raises(ValueError, match=r"shard=\(2, 2\) is not possible"):
        prepared_dataset(folder, shard=(2, 2))
    copy = _copy(folder, tmp_path)
    first = copy / "train" / "part-00000.arrow"
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"part-00000.arrow: not a whole Arrow file"):
        prepared_dataset(copy).source.read_block(0)
    shutil.copy(copy / "train" / "part-00005.arrow", first)
    with pytest.raises(ValueError, match=r"rows where the manifest says 64"):
        prepared_dataset(copy).source.read_block(0)
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00000.arrow: the manifest names it"):
        prepared_dataset(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ValueError, match="version 99; this program reads"):
        prepared_dataset(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not a manifest of prepared data"):
        prepared_dataset(copy)


def test_types(folder: Path) -> None:
    columns = prepared_dataset(folder).source.read_block(1)
    assert isinstance(columns, Columns)
    assert (columns.dense.dtype, columns.labels.dtype) == (np.float32, np.float32)
