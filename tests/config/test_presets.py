"""Config files and presets, with the numbers of the known runs."""

from __future__ import annotations

import pytest

from tests.config_samples import experiment
from tfdlrm.config import ExperimentConfig, load_config, preset, preset_names
from tfdlrm.schema import criteo_feature_spec


def test_load_config_from_a_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(experiment().to_yaml(), encoding="utf-8")
    assert load_config(file) == experiment()
    assert load_config(str(file)) == experiment()


def test_a_bad_file_is_named(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: {embedding_dim: 8, bottom_mlp: [8], top_mlp: [1]}\ntrian: {}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: ExperimentConfig: unknown key 'trian', did you mean 'train'"):
        load_config(file)
    file.write_text("")
    with pytest.raises(ValueError, match=r"run\.yaml: ExperimentConfig: got None"):
        load_config(file)
    file.write_text("model: {embedding_dim: 8, bottom_mlp: [8]}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: DLRMConfig: key 'top_mlp' is missing"):
        load_config(file)


def test_an_unknown_preset_is_named():
    with pytest.raises(FileNotFoundError, match="'criteo-kagle' is neither a file nor a preset, did you mean"):
        load_config("criteo-kagle")
    with pytest.raises(ValueError, match="name='movielens' is not known, did you mean 'movielens-100k'"):
        preset("movielens")


def test_presets_are_complete_and_round_trip():
    assert preset_names() == (
        "avazu",
        "criteo-kaggle",
        "criteo-terabyte",
        "dcnv2",
        "dlrm",
        "mlperf-dcnv2",
        "mlperf-dlrm",
        "movielens-100k",
        "quickstart",
    )
    for name in preset_names():
        assert ExperimentConfig.from_yaml(preset(name).to_yaml()) == preset(name)
        assert load_config(name) == preset(name)


# fmt: off
KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
    5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)
DCNV2_ROWS = (
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209, 11938, 155,
    4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36,
)
DCNV2_HOTNESS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
# fmt: on


@pytest.mark.parametrize(
    ("name", "width", "bottom", "top", "optimizer", "rate", "batch", "id_modulo"),
    [
        ("criteo-kaggle", 16, (512, 256, 64, 16), (512, 256, 1), "sgd", 0.1, 128, None),
        ("criteo-terabyte", 64, (512, 256, 64), (512, 512, 256, 1), "sgd", 0.1, 2048, 10_000_000),
        ("mlperf-dlrm", 128, (512, 256, 128), (1024, 1024, 512, 256, 1), "sgd", 1.0, 2048, 40_000_000),
        (
            "mlperf-dcnv2",
            128,
            (512, 256, 128),
            (1024, 1024, 512, 256, 1),
            "adagrad",
            0.005,
            65536,
            40_000_000,
        ),
    ],
)
def test_known_runs(name, width, bottom, top, optimizer, rate, batch, id_modulo):
    config = preset(name)
    assert config.model.embedding_dim == width
    assert config.model.bottom_mlp == bottom
    assert config.model.top_mlp == top
    assert config.train.optimizer == optimizer
    assert config.train.learning_rate == rate
    assert config.train.global_batch_size == batch
    assert config.train.loss == "bce"
    assert config.train.epochs == 1
    assert config.data.id_modulo == id_modulo
    # The columns are those of the Criteo schema, in its order, so that the data's sizes can take their place.
    schema = criteo_feature_spec(tuple(one.vocabulary_size for one in config.model.tables))
    assert config.model.num_dense == schema.num_dense
    assert tuple(feature.name for feature in config.model.features) == schema.feature_names
    assert tuple(one.name for one in config.model.tables) == schema.table_names


def test_kaggle_rows():
    config = preset("criteo-kaggle")
    assert tuple(one.vocabulary_size for one in config.model.tables) == KAGGLE_ROWS
    assert config.data.split == "criteo-kaggle"


def test_dcnv2_rows_hotness_and_cross():
    config = preset("mlperf-dcnv2").model
    assert tuple(one.vocabulary_size for one in config.tables) == DCNV2_ROWS
    assert tuple(feature.hotness for feature in config.features) == DCNV2_HOTNESS
    assert (config.architecture, config.cross_layers, config.cross_rank) == ("dcnv2", 3, 512)


def test_ids_stay_below_the_modulo():
    for name in ("criteo-terabyte", "mlperf-dlrm", "mlperf-dcnv2"):
        config = preset(name)
        assert max(one.vocabulary_size for one in config.model.tables) <= config.data.id_modulo


def test_movielens_protocol():
    config = preset("movielens-100k")
    assert config.model.embedding_dim == 16
    assert config.train.optimizer == "adagrad"
    assert config.train.deterministic  # the documented numbers can be repeated
    assert (config.train.monitor, config.train.monitor_mode) == ("val_auc", "max")
    assert (config.data.format, config.data.split) == ("movielens", "time")
    assert (config.data.train_fraction, config.data.validation_fraction) == (0.8, 0.1)
    assert config.model.tables == ()  # vocabularies come from the training part
