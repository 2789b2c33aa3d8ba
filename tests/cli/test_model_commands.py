"""train, evaluate, predict and export, from flags to files and exit codes, in this process."""

from __future__ import annotations

import json
import re
import signal
import statistics
from pathlib import Path

import numpy as np
import pytest

from savedmodels.commands import add_export
from tests.training.csv_run import csv_config, csv_run, write_rows
from tfdlrm.cli.program import main, own_commands
from tfdlrm.data.raw_formats import AVAZU_COLUMNS
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.run import TrainResult
from tfdlrm.training.seeds import SeedResults


def run(*argv: object) -> int:
    return main([str(word) for word in argv], [*own_commands(), add_export])


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def config_file(tmp_path) -> Path:
    """A config of a CSV file of 100 rows."""
    file = tmp_path / "config.yaml"
    file.write_text(csv_config(write_rows(tmp_path / "rows.csv", 100)).to_yaml())
    return file


def one_error(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("tfdlrm: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_train_then_evaluate_then_predict_then_export(capsys, config_file, tmp_path):
    model = tmp_path / "model"
    assert run("train", config_file, "--model-dir", model, "--set", "train.epochs=1") == 0
    out = capsys.readouterr().out
    assert "epoch 1/1" in out
    assert "samples/s" in out
    assert "100 rows read = 100 used + 0 set aside" in out
    assert "best: epoch 1, val_auc" in out
    assert "test part" in out

    assert run("evaluate", model, "--json", tmp_path / "metrics.json") == 0
    assert "log_loss" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["rows"] == 10

    scores = tmp_path / "scores.csv"
    assert run("predict", model, "--data", tmp_path / "rows.csv", "--output", scores, "--batch-size", 16) == 0
    assert "100 rows read = 100 scored + 0 set aside" in capsys.readouterr().out
    assert len(scores.read_text().splitlines()) == 101

    assert run("export", model, tmp_path / "export") == 0
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()

    # the folder holds a run now
    assert run("train", config_file, "--model-dir", model) == 2
    assert "--resume, or give another --model-dir" in one_error(capsys)
    assert run("train", config_file, "--model-dir", model, "--resume", "--quiet") == 0
    assert "best: epoch" in capsys.readouterr().out
    assert run("train", config_file, "--model-dir", model, "--resume", "--set", "model.top_mlp=[4,1]") == 2
    assert "cannot resume: the config is not the one this run began with: model.top_mlp" in one_error(capsys)
    assert len((model / "history.csv").read_text().splitlines()) == 3  # the header, and two epochs


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_ids_written_in_another_way_are_told(command, capsys, model_dir, tmp_path):
    rows = write_rows(tmp_path / "rows.csv", 50)
    more = ("--output", tmp_path / "scores.csv") if command == "predict" else ()
    assert run(command, model_dir, "--data", rows, *more) == 0
    assert "unknown ids" not in capsys.readouterr().out
    rows.write_text(re.sub(r",u(\d)", r",user-\1", rows.read_text()))
    assert run(command, model_dir, "--data", rows, *more) == 0
    assert "unknown ids: user 100.0% (validation part: 0.0%). The model knows no row" in capsys.readouterr().out


def test_seeds_print_each_and_their_mean(capsys, config_file, tmp_path):
    argv = ["train", config_file, "--model-dir", tmp_path / "m", "--seeds", "3,5", "--set", "train.epochs=1", "--quiet"]
    assert run(*argv) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["3"] != rows["5"]
    for column in (-2, -1):
        mean = statistics.fmean(float(rows[seed][column]) for seed in ("3", "5"))
        assert float(rows["mean"][column]) == pytest.approx(mean, abs=1e-5)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["seed-3", "seed-5"]
    assert run(*argv) == 2
    assert "seed-3: there is a run here" in one_error(capsys)
    assert run(*argv, "--resume") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "missing.csv"], "missing.csv: there is no such file"),
        (["--data", "empty.csv"], "empty.csv: the file is empty (0 bytes)"),
        (["--resume"], "no checkpoint to resume from. Train without --resume"),
        (["--set", "train.monitor=val_auk"], "did you mean 'val_auc'?"),
        (["--set", "model.embedding_dim=5"], "bottom_mlp=[8, 4] does not end in embedding_dim=5"),
        (["--seeds", "1,1"], "seeds=[1, 1]: give at least one, and each once"),
        (["--seeds", "1", "--set", "data.split=none"], "the data have no test part to compare seeds on"),
    ],
)
def test_what_cannot_be_trained_is_refused(capsys, monkeypatch, config_file, tmp_path, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    assert run("train", config_file, "--model-dir", "model", *flags) == 2
    assert message in one_error(capsys)


def test_a_folder_of_other_files_is_not_written_to(capsys, config_file, tmp_path):
    assert run("train", config_file, "--model-dir", tmp_path) == 2
    assert "holds files and no run: config.yaml, rows.csv" in one_error(capsys)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml", "rows.csv"]


def test_a_folder_that_cannot_be_written_is_named(capsys, config_file, tmp_path):
    (tmp_path / "file").touch()
    assert run("train", config_file, "--model-dir", tmp_path / "file" / "model") == 2
    assert str(tmp_path / "file" / "model") in one_error(capsys)


def test_a_config_file_needs_a_model_dir(capsys, config_file):
    assert run("train", config_file) == 2
    assert "--model-dir is missing" in one_error(capsys)


def test_flags_reach_the_config(monkeypatch, config_file, tmp_path):
    seen = {}

    def train(config, model_dir, **options):
        seen.update(config=config, model_dir=model_dir, **options)
        return TrainResult(model=None, history={}, best=None, books="", test=None)

    monkeypatch.setattr("tfdlrm.training.run.train", train)
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a: b.csv", 3)
    flags = ["--data", "a: b.csv", "--bad-rows", "quarantine", "--deterministic", "--resume", "--quiet"]
    assert run("train", config_file, "--model-dir", "m", *flags, "--set", "train.epochs=7") == 0
    config = seen["config"]
    assert config.data.path == str(tmp_path / "a: b.csv")
    assert (config.train.bad_rows, config.train.deterministic, config.train.epochs) == ("quarantine", True, 7)
    assert (seen["model_dir"], seen["resume"], seen["verbose"]) == (Path("m"), True, 0)


def test_movielens_is_fetched_into_a_cache(monkeypatch, tmp_path):
    seen = {}

    def train(config, model_dir, **options):
        seen.update(path=config.data.path, model_dir=model_dir)
        return TrainResult(model=None, history={}, best=None, books="", test=None)

    monkeypatch.setattr("tfdlrm.training.run.train", train)
    monkeypatch.setattr("tfdlrm.data.movielens_download.fetch_movielens", Path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("train", "movielens-100k") == 0
    assert seen == {"path": str(tmp_path / "tfdlrm" / "movielens-100k"), "model_dir": Path("runs/movielens-100k")}
    monkeypatch.setenv("TFDLRM_MOVIELENS_DIR", str(tmp_path / "ml"))
    assert run("train", "movielens-100k") == 0
    assert seen["path"] == str(tmp_path / "ml")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_with_its_own_code(capsys, monkeypatch, config_file, tmp_path, name, code):
    result = TrainResult(model=None, history={}, best=None, books="", test=None, interrupted_by=name)
    monkeypatch.setattr("tfdlrm.training.run.train", lambda *args, **options: result)
    assert run("train", config_file, "--model-dir", "m") == code == 128 + signal.Signals[name]
    again = f"stopped by {name}; go on with: tfdlrm train"
    assert f"{again} --model-dir m --resume\n" in capsys.readouterr().out
    # seeds are runs in folders of their own: the command as it was
    results = SeedResults(runs=(), monitor="val_auc", interrupted_by=name)
    monkeypatch.setattr("tfdlrm.training.seeds.train_seeds", lambda *args, **options: results)
    write_rows(tmp_path / "a b.csv", 3)
    data = str(tmp_path / "a b.csv")
    flags = ["--data", data, "--set", "train.epochs=3", "--set", "model.top_mlp=[4,1]", "--bad-rows", "quarantine"]
    assert run("train", config_file, *flags, "--model-dir", "m", "--seeds", "0,1") == code
    said = f"{config_file} --seeds 0,1 --data '{data}' --set train.epochs=3 --set 'model.top_mlp=[4,1]'"
    assert f"{again} {said} --bad-rows quarantine --model-dir m --resume\n" in capsys.readouterr().out


def test_a_run_goes_on_by_its_folder_alone(capsys, monkeypatch, config_file, tmp_path):
    """From any folder, with the data, flags and settings that it began with."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    flags = ["--data", "rows.csv", "--bad-rows", "quarantine", "--set", "train.epochs=1"]
    assert run("train", "config.yaml", "--model-dir", "m", *flags) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("train", "--model-dir", "../m", "--resume", "--set", "train.epochs=2") == 0
    assert "epoch 2/2" in capsys.readouterr().out
    config = ModelDir(tmp_path / "m").load_config()
    assert (config.train.epochs, config.train.bad_rows) == (2, "quarantine")
    assert run("train", "--model-dir", "../m", "--resume") == 0  # nothing is left to do
    assert "model: ../m" in capsys.readouterr().out
    for wrong in (["--model-dir", "../m"], ["--resume"]):
        assert run("train", *wrong) == 2
        assert "CONFIG is missing. Give a YAML file or a preset" in one_error(capsys)
    assert run("train", "--model-dir", "../m", "--resume", "--seeds", "0,1") == 2
    assert "CONFIG is missing, and --seeds are several runs" in one_error(capsys)
    assert run("train", "--resume", "--model-dir", ".") == 2
    assert "config.yaml: no run there. Give the --model-dir of a training run." in one_error(capsys)


def test_rows_without_dense_columns_go_all_the_way(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    lines = [",".join(("id", "click", "hour", *AVAZU_COLUMNS))]
    for row in range(300):
        cells = random.integers(0, 4, len(AVAZU_COLUMNS))
        lines.append(",".join(map(str, (row, int(cells[3] > 1), 14102100 + row // 20, *cells))))
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    assert run("data", "prepare", "train.csv", "prepared", "--format", "avazu", "--split", "time") == 0
    for data, flags in (("prepared", []), ("train.csv", ["--model-dir", "raw"])):
        assert run("train", "avazu", "--data", data, "--set", "train.global_batch_size=32", *flags) == 0
        assert "300 rows read = 300 used + 0 set aside" in capsys.readouterr().out
    assert run("evaluate", "runs/avazu", "--data", "train.csv") == 0
    assert run("predict", "runs/avazu", "--data", "train.csv", "--output", "scores.csv") == 0
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 301
    assert run("export", "runs/avazu", "exported") == 0
    assert "error" not in capsys.readouterr().err


def test_data_of_any_format_replaces_a_presets_own(monkeypatch, tmp_path):
    seen = []
    result = TrainResult(model=None, history={}, best=None, books="", test=None)
    monkeypatch.setattr("tfdlrm.training.run.train", lambda config, *_, **__: seen.append(config.data) or result)
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", 3)
    assert run("train", "quickstart", "--data", "rows.csv") == 0
    assert run("train", "quickstart", "--data", "rows.csv", "--set", "data.split=none") == 0
    assert run("train", "criteo-kaggle", "--data", "rows.csv", "--set", "data.format=criteo") == 0
    path = str(tmp_path / "rows.csv")
    assert [(data.format, data.split, data.path) for data in seen] == [
        ("csv", "time", path),
        ("csv", "none", path),
        ("criteo", "criteo-kaggle", path),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["evaluate", "nothing"], "nothing/config.yaml: no run there"),
        (["evaluate", "MODEL", "--checkpoint", "step-1"], "no checkpoint of that name. There are: step-000000010"),
        (["evaluate", "MODEL", "--group-by", "shop"], "group_by='shop' is no key column"),
        (["evaluate", "MODEL", "--batch-size", "0"], "batch_size=0"),
        (["evaluate", "MODEL", "--data", "rows.csv"], "rows.csv: there is no such file"),
        (["evaluate", "MODEL", "--json", "no/folder/m.json"], "no/folder/m.json: No such file or directory"),
        (["predict", "MODEL", "--data", "rows.csv", "--output", "s.xls"], ".xls is not a format of scores"),
        (["export", "nothing", "out"], "nothing/config.yaml: no run there"),
    ],
)
def test_what_cannot_be_read_is_refused(capsys, monkeypatch, model_dir, tmp_path, flags, message):
    monkeypatch.chdir(tmp_path)
    assert run(*(model_dir if word == "MODEL" else word for word in flags)) == 2
    assert message in one_error(capsys)
