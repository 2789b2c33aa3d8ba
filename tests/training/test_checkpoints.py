"""Checkpoint folders: whole or absent, the right ones kept, damage and other models told by name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.full_disk import file_size_limit
from tests.training.small_run import SPEC, assert_identical, numbers, small_config, small_splits, with_model
from tfdlrm.config import ExperimentConfig, FeatureConfig, TableConfig
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.embeddings.optimizers import SGD, LazyAdam
from tfdlrm.layers import EmbeddingCollection
from tfdlrm.models.base import Model
from tfdlrm.training.build import build_model, resolve_config
from tfdlrm.training.checkpoint_folder import tidy, verify_folder, write_file, write_folder
from tfdlrm.training.checkpoints import Checkpoints
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.model_state import model_places, restore_model_state, save_model_state
from tfdlrm.training.run import train
from tfdlrm.training.run_state import BestModel, RunState


def built(config: ExperimentConfig | None = None) -> keras.Model:
    return build_model(config or small_config(), SPEC)


def scrambled(model: keras.Model, seed: int = 1) -> keras.Model:
    """Every number of the model replaced by another one."""
    random = np.random.default_rng(seed)
    for place in model_places(model):
        dtype = tf.as_dtype(place.variable.dtype).as_numpy_dtype
        place.variable.assign(random.integers(0, 100, tuple(place.variable.shape)).astype(dtype))
    for piece in model.embeddings.tables.slices():
        piece.write(0, random.normal(size=(piece.total, piece.width)).astype(np.float32))
    model.embeddings.tables.iterations.assign(31)
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return scrambled(built())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, model: keras.Model) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_model_state(model, folder)
    return folder


def test_every_number_comes_back(model: keras.Model, saved: Path) -> None:
    other = scrambled(built(), seed=2)  # named dlrm_1 or so by Keras, were it not named by us
    restore_model_state(other, saved)
    assert_identical(numbers(other), numbers(model))


def two_collections() -> keras.Model:
    """A model of one's own: two collections on one set of tables, a third with its own."""
    tables = {name: TableConfig(name=name, vocabulary_size=20, embedding_dim=4) for name in ("item", "user")}
    inputs = {name: keras.Input((), dtype="int64", name=name) for name in ("seen", "bought", "who")}
    seen = EmbeddingCollection([FeatureConfig(name="seen", table=tables["item"])], optimizer=LazyAdam(0.1))
    bought = EmbeddingCollection([FeatureConfig(name="bought", table="item")], share_tables_with=seen)
    who = EmbeddingCollection([FeatureConfig(name="who", table=tables["user"])], optimizer=SGD(0.1))
    pooled = [layer({name: inputs[name]}) for layer, name in ((seen, "seen"), (bought, "bought"), (who, "who"))]
    logits = keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Concatenate()(pooled)))
    model = Model(inputs, logits)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    return model


def test_models_of_several_collections(tmp_path: Path) -> None:
    model = two_collections()
    ids = {name: np.arange(8) for name in ("seen", "bought", "who")}
    model.fit(ids, np.arange(8) % 2, epochs=2, verbose=0)
    save_model_state(model, tmp_path)
    assert {file.name.partition(".")[0] for file in tmp_path.glob("*.index")} == {"tables", "tables-1"}
    other = two_collections()
    restore_model_state(other, tmp_path)
    assert_identical(numbers(other), numbers(model))


def test_weights_alone(model: keras.Model, saved: Path) -> None:
    config = small_config(optimizer="adam", row_optimizer=SGD())  # neither optimizer has the state that was saved
    other = built(config)
    before = numbers(other)
    restore_model_state(other, saved, weights_only=True)
    expected = numbers(model)
    for name, values in numbers(other).items():
        is_weight = name.startswith("weights/") or name.endswith("/rows")
        np.testing.assert_array_equal(values, expected[name] if is_weight else before[name], err_msg=name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"bottom_mlp": (16, 4)},
            r"weights of another model: 'bottom_mlp/dense/kernel' \[2, 8\] in the checkpoint, .* \[2, 16\] in this",
        ),
        (
            {"normalization": None},
            r"'bottom_mlp/dense/kernel' \[8, 4\] in the checkpoint, 'bottom_mlp/dense/bias' \[8\]",
        ),
        ({"embedding_dim": 8, "bottom_mlp": (8, 8)}, r"'bottom_mlp/dense/kernel' \[8, 4\] .* \[8, 8\]"),
    ],
)
def test_another_model_is_named(saved: Path, fields: dict, message: str) -> None:
    other = built(with_model(small_config(), **fields))
    before = numbers(other)
    with pytest.raises(ValueError, match=message):
        restore_model_state(other, saved)
    assert_identical(numbers(other), before)


def test_another_table_is_named(saved: Path) -> None:
    other = build_model(small_config(), SPEC.with_vocabulary_sizes({"item": 41}))
    with pytest.raises(ValueError, match=r"table 'item': rows were saved as \[40, 4\], the model's are \[41, 4\]"):
        restore_model_state(other, saved)


def test_another_optimizer_is_named(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"optimizer of another model.*learning_rate"):
        restore_model_state(built(small_config(schedule=None)), saved)


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("a")
        raise OSError("No space left on device")

    target = tmp_path / "target"
    with pytest.raises(OSError, match="No space"):
        write_folder(target, fail)
    assert not list(tmp_path.iterdir())
    write_folder(target, lambda folder: (folder / "a").write_text("first"))
    with pytest.raises(OSError, match="No space"):
        write_folder(target, fail)
    assert (target / "a").read_text() == "first"
    write_folder(target, lambda folder: (folder / "a").write_text("second"))
    assert (target / "a").read_text() == "second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "b: the file is missing"),
        (lambda file: file.write_text("tw"), "b: 2 bytes, 3 were written"),
        (lambda file: file.write_text("tow"), "b: its content is not what was written"),
        (lambda file: (file.parent / "manifest.json").write_text("{"), r"manifest\.json: cannot be read"),
        (lambda file: (file.parent / "manifest.json").write_text('{"files": {}, "format": 9}'), "format 9 is not 1"),
    ],
)
def test_damage_is_found(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    def write(folder: Path) -> None:
        (folder / "a").write_text("one")
        (folder / "b").write_text("two")

    write_folder(tmp_path / "target", write)
    verify_folder(tmp_path / "target")
    damage(tmp_path / "target" / "b")
    with pytest.raises(DamagedCheckpointError, match=message):
        verify_folder(tmp_path / "target")


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    for name in (
        ".partial-step-000000002-77",
        ".replaced-step-000000001",
        "step-000000003",
        ".replaced-step-000000003",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / ".partial-best.json-77").write_text("{")
    tidy(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["step-000000001", "step-000000003"]  # killed between the two renames
    assert (tmp_path / "step-000000003" / "file").read_text() == "step-000000003"


def test_a_link_to_elsewhere_is_no_checkpoint(tmp_path: Path, saved: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / Checkpoints.name_of(7)).symlink_to(saved)
    with pytest.raises(ValueError, match=r"step-000000007: a link leads out of .*checkpoints"):
        Checkpoints(folder).path(Checkpoints.name_of(7))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoints").symlink_to(folder)
    with pytest.raises(ValueError, match=r"other/checkpoints: is a link"):
        ModelDir(tmp_path / "other").checkpoints()


def test_a_state_of_another_step_is_damage(tmp_path: Path, model: keras.Model) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model, RunState(step=3), resolve_config(small_config(), SPEC), SPEC)
    (tmp_path / checkpoints.name_of(3)).rename(tmp_path / checkpoints.name_of(4))
    with pytest.raises(DamagedCheckpointError, match=r"step-000000004.*step=3 is another checkpoint's"):
        checkpoints.read_state(checkpoints.name_of(4))


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    write_file(tmp_path / "best.json", "1")
    write_file(tmp_path / "best.json", "2")
    assert (tmp_path / "best.json").read_text() == "2"
    assert os.listdir(tmp_path) == ["best.json"]


def test_the_last_and_the_best_are_kept(tmp_path: Path, model: keras.Model) -> None:
    config = resolve_config(small_config(), SPEC)
    checkpoints = Checkpoints(tmp_path, keep=2)
    state = RunState(seed=3)
    for step in (10, 20, 30, 40, 50):
        state.step = step
        state.resumable = step != 40
        if step in (10, 20):
            state.best = BestModel(
                step=step, epoch=0, monitor="val_auc", value=0.5, checkpoint=Checkpoints.name_of(step)
            )
        checkpoints.save(model, state, config, SPEC)
    assert checkpoints.names() == ["step-000000020", "step-000000030", "step-000000050"]
    assert checkpoints.read_state("step-000000050") == state
    assert checkpoints.read_config("step-000000050") == (config, SPEC)
    assert list(checkpoints.newest_first()) == ["step-000000050", "step-000000030", "step-000000020"]
    with pytest.raises(FileNotFoundError, match=r"step-000000040: no checkpoint.*There are: step-000000020, step"):
        checkpoints.path("step-000000040")
    plain = json.loads((tmp_path / "step-000000050" / "state.json").read_text())
    assert set(plain) == {"tfdlrm", "tensorflow", "keras", "config_sha256", "state"}


# the first number is below the size of the tables, the second between theirs and that of the other variables
@pytest.mark.parametrize("num_bytes", [100, 20_000])
def test_a_full_disk_leaves_older_checkpoints_whole(tmp_path: Path, model: keras.Model, num_bytes: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    config = resolve_config(small_config(), SPEC)
    checkpoints.save(model, RunState(step=1), config, SPEC)
    with (
        file_size_limit(num_bytes),
        pytest.raises(OSError, match=r"step-000000002: cannot be written: .*Older ones are whole: step-000000001"),
    ):
        checkpoints.save(model, RunState(step=2), config, SPEC)
    assert os.listdir(tmp_path) == ["step-000000001"]
    verify_folder(tmp_path / "step-000000001")


def test_a_folder_that_cannot_be_made(tmp_path: Path, model: keras.Model) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match=r"step-000000002: cannot be written"):
        Checkpoints(tmp_path / "checkpoints").save(model, RunState(step=2), resolve_config(small_config(), SPEC), SPEC)


def test_a_model_is_read_back(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run there"):
        ModelDir(tmp_path).load_config()
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        ModelDir(tmp_path).load_model("latest")
    with pytest.raises(FileNotFoundError, match="no epoch of this run was completed"):
        ModelDir(tmp_path).load_model("best")
    config = small_config(epochs=2)
    result = train(config, tmp_path, data=small_splits(), verbose=0)
    directory = ModelDir(tmp_path)
    assert result.best is not None
    best, read_config, spec = directory.load_model()
    assert_identical(numbers(best), numbers(result.model))
    assert (read_config, spec) == (resolve_config(config, SPEC), SPEC)
    assert directory.load_config() == read_config
    assert directory.read_best() == {key: value for key, value in result.best.items() if key != "path"}
    latest, _, _ = directory.load_model("step-000000020", weights_only=True)
    assert_identical(
        {name: value for name, value in numbers(latest).items() if "rows" in name},
        {name: value for name, value in numbers(directory.load_model("latest")[0]).items() if "rows" in name},
    )


def test_state_of_a_newer_version_is_read() -> None:
    state = RunState(step=3, best=BestModel(step=1, epoch=0, monitor="val_auc", value=0.7, checkpoint="step-000000001"))
    assert RunState.from_dict({**state.to_dict(), "added_later": 1}) == state
    assert RunState.from_dict(replace(state, best=None).to_dict()).best is None
