"""Searches: trials, pruning, finalists, and going on after kill -9 and Ctrl-C."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pages import assert_drawn, read_png
from tests.training.csv_run import csv_config, write_rows
from tfdlrm.cli import main
from tfdlrm.config import ExperimentConfig, load_config
from tfdlrm.training.run import TrainResult, train
from tfdlrm.training.seeds import SeedResults
from tfdlrm.training.step_counter import TrainingDivergedError
from tfdlrm.tuning import search as search_module
from tfdlrm.tuning.plot import board, search_png
from tfdlrm.tuning.search import TuneResult, tune
from tfdlrm.tuning.space import Space

SPACE = Space.from_dict(
    {
        "train.learning_rate": {"low": 0.0001, "high": 0.2, "log": True},
        "model.embedding_dim": [2, 4],
        "model.top_mlp": [[4, 1], [8, 1]],
    }
)


def config_at(folder: Path, **train_options: object) -> ExperimentConfig:
    config = csv_config(write_rows(folder / "rows.csv", 600))
    return replace(config, train=replace(config.train, **train_options))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TuneResult]:
    folder = tmp_path_factory.mktemp("tune")
    return folder / "search", tune(config_at(folder), folder / "search", space=SPACE, trials=5, seeds=[0, 1], verbose=0)


def test_the_best_is_settled_by_seeds(found: tuple[Path, TuneResult]) -> None:
    folder, result = found
    assert [each.state for each in result.trials].count("complete") >= 3
    assert len(result.trials) == 5
    values = [each.value for each in result.trials if each.state == "complete"]
    assert values == sorted(values, reverse=True)
    assert len(result.finalists) == 4
    assert "given" in {each.name for each in result.finalists}
    means = [each.validation for each in result.finalists]
    assert means == sorted(means, reverse=True)
    assert all(len(each.results.runs) == 2 for each in result.finalists)
    assert result.best_file == folder / "best.yaml"
    best = load_config(folder / "best.yaml")
    for key, value in result.finalists[0].values.items():
        part, name = key.split(".")
        kept = getattr(getattr(best, part), name)
        assert (list(kept) if isinstance(kept, tuple) else kept) == value
    # the trials keep their histories and not their models
    assert not list(folder.glob("trials/*/checkpoints/*"))
    assert len(list(folder.glob("trials/*/history.csv"))) == 5
    lines = list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))
    assert [int(line["trial"]) for line in lines] == [each.number for each in result.trials]


def test_the_best_config_trains(found: tuple[Path, TuneResult], tmp_path: Path) -> None:
    folder, _ = found
    assert main(["train", str(folder / "best.yaml"), "--model-dir", str(tmp_path / "run"), "--quiet"]) == 0


def test_tables_and_plots(found: tuple[Path, TuneResult]) -> None:
    _, result = found
    table = board(result.trials, result.monitor)
    assert {len(row) for row in table.rows} == {len(table.header)} == {7}
    assert_drawn(read_png(search_png(result)))


def test_a_search_that_ended_goes_on_with_more_trials(found: tuple[Path, TuneResult]) -> None:
    folder, result = found
    more = tune(None, folder, trials=6, seeds=[0, 1], resume=True, verbose=0)
    assert len(more.trials) == 6
    known = {each.number: (each.value, each.values) for each in result.trials}
    assert known == {each.number: (each.value, each.values) for each in more.trials if each.number in known}


def test_trials_that_are_behind_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "FINALISTS", 1)
    space = Space.from_dict({"train.learning_rate": [0.05, 0.0]})
    drawn = iter([0.05] * 6 + [0.0] * 2)
    monkeypatch.setattr(Space, "draw", lambda self, trial: {"train.learning_rate": _drawn(trial, next(drawn))})
    result = tune(config_at(tmp_path, epochs=3), tmp_path / "s", space=space, trials=8, seeds=[0], verbose=0)
    by_number = {each.number: each for each in result.trials}
    assert [by_number[k].state for k in (6, 7)] == ["pruned", "pruned"]
    assert by_number[6].epochs < 3
    assert by_number[0].epochs == 3
    assert [each.number for each in result.trials][-2:] in ([6, 7], [7, 6])


def _drawn(trial: object, value: float) -> float:
    trial.suggest_categorical("train.learning_rate", ["0.05", "0.0"])  # type: ignore[attr-defined]
    return value


def test_a_diverging_trial_does_not_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def sometimes(*arguments: object, **options: object) -> TrainResult:
        calls.append(1)
        if len(calls) == 2:
            raise TrainingDivergedError("step 3: the loss is NaN")
        return train(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module, "train", sometimes)
    monkeypatch.setattr(search_module, "FINALISTS", 1)
    result = tune(config_at(tmp_path), tmp_path / "s", space=SPACE, trials=3, seeds=[0], verbose=0)
    assert sorted(each.state for each in result.trials) == ["complete", "complete", "diverged"]
    assert result.trials[-1].state == "diverged"


def test_values_that_do_not_go_together_are_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search_module, "FINALISTS", 1)
    config = config_at(tmp_path)
    width = config.model.embedding_dim
    # each goes with the config as it is; width 2 does not go with a bottom MLP that ends in another
    space = Space.from_dict({"model.embedding_dim": [2, width], "model.bottom_mlp": [[3, width], [5, width]]})
    result = tune(config, tmp_path / "s", space=space, trials=6, seeds=[0])
    states = {(each.values["model.embedding_dim"], each.state) for each in result.trials}
    assert states == {(2, "refused"), (width, "complete")}
    assert result.trials[-1].state == "refused"
    assert all(each.values.get("model.embedding_dim") != 2 for each in result.finalists)
    assert ": refused: DLRMConfig: bottom_mlp=" in capsys.readouterr().out


def test_a_finalist_that_diverges_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "FINALISTS", 1)
    settle, diverge = search_module.train_seeds, ["trial-"]

    def sometimes(config: ExperimentConfig, folder: Path, *arguments: object, **options: object) -> SeedResults:
        if any(folder.name.startswith(name) for name in diverge):
            raise TrainingDivergedError(f"{folder.name}: the loss is NaN")
        return settle(config, folder, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module, "train_seeds", sometimes)
    result = tune(config_at(tmp_path), tmp_path / "s", space=SPACE, trials=1, seeds=[0], verbose=0)
    assert [each.name for each in result.finalists] == ["given"]
    assert result.diverged == ("trial 0",)
    diverge.append("given")
    with pytest.raises(TrainingDivergedError, match="given: the loss is NaN"):
        tune(None, tmp_path / "s", trials=1, seeds=[0], resume=True, verbose=0)


@pytest.mark.multiprocess
def test_killed_twice_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_at(tmp_path, epochs=6, global_batch_size=4)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "space.yaml").write_text("train.learning_rate: {low: 0.001, high: 0.1, log: true}\n")
    folder = tmp_path / "search"
    command = [sys.executable, "-m", "tfdlrm", "tune", "--model-dir", str(folder), "--trials", "4", "--seeds", "0"]
    begin = [str(tmp_path / "config.yaml"), "--space", str(tmp_path / "space.yaml")]
    seen: list[int] = []
    for flags, how in ((begin, signal.SIGKILL), (["--resume"], signal.SIGTERM)):
        process = subprocess.Popen([*command, *flags], cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
        ready = "trials/*/checkpoints/step-*" if how == signal.SIGKILL else "leaderboard.csv"
        _wait_for(lambda: any(folder.glob(ready)), process)  # noqa: B023
        seen.append(len(list(folder.glob("trials/*"))))
        process.send_signal(how)
        assert process.wait(60) == (-signal.SIGKILL if how == signal.SIGKILL else 143)
    interrupted = sorted(folder.glob("trials/*"))[-1]
    history = (interrupted / "history.csv").read_text() if (interrupted / "history.csv").exists() else ""
    assert main([*command[3:], "--resume", "--png", str(tmp_path / "search.png")]) == 0
    said = capsys.readouterr().out
    assert "4 trials, best first" in said
    assert "means over 1 seeds" in said
    assert_drawn(read_png((tmp_path / "search.png").read_bytes()))
    # the run that was interrupted went on: its first epochs are the ones that were there
    assert (interrupted / "history.csv").read_text().startswith(history)
    assert len(list(folder.glob("trials/*"))) == 4
    assert seen[0] >= 1


def _wait_for(condition: object, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["tune", *words]) == 2
        return capsys.readouterr().err

    config = config_at(tmp_path)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    target = ["--model-dir", str(tmp_path / "search")]
    assert "no search there" in refused("--resume", *target)
    assert "CONFIG is missing" in refused(*target)
    assert "no such" in refused(str(tmp_path / "config.yaml"), *target, "--space", str(tmp_path / "none.yaml")).lower()
    (tmp_path / "space.yaml").write_text("train.learning_rat: [0.1]\n")
    assert "learning_rate" in refused(str(tmp_path / "config.yaml"), *target, "--space", str(tmp_path / "space.yaml"))
    assert "trials" in refused(str(tmp_path / "config.yaml"), *target, "--trials", "0")
    assert "--resume goes on with the search's own config" in refused(
        str(tmp_path / "config.yaml"), *target, "--resume"
    )
    no_test = ["--set", "data.split=none"]
    assert "no validation part" in refused(str(tmp_path / "config.yaml"), "--model-dir", str(tmp_path / "n"), *no_test)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    assert "holds thesis.txt" in refused(str(tmp_path / "config.yaml"), "--model-dir", str(tmp_path / "full"))
    assert os.listdir(tmp_path / "full") in (["thesis.txt", ".tune-lock"], [".tune-lock", "thesis.txt"])
