"""Commands that work on data do without TensorFlow, whose import takes longer than many of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import sample_rows as sample
from tfdlrm.cli import program
from tfdlrm.schema import CategoricalColumn, FeatureSpec

pytestmark = pytest.mark.multiprocess

# a command, its exit code, and whether TensorFlow was imported
RUN = """
import sys
from tfdlrm.cli.program import main
code = main(sys.argv[1:])
print("CODE", code, "TENSORFLOW", "tensorflow" in sys.modules)
"""


def _run(*arguments: object) -> tuple[str, str]:
    """The last line that a command in a process of its own says, and what it says on its error stream."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()[-1], done.stderr


@pytest.fixture
def criteo(tmp_path: Path) -> Path:
    """A Criteo file of 80 rows."""
    path = tmp_path / "train.txt"
    path.write_bytes(sample.criteo_text(sample.criteo_rows(80)))
    return path


def _prepare(source: Path, *flags: object) -> tuple[str, str]:
    return _run("data", "prepare", source, source.parent / "out", *flags)


def _csv(folder: Path, **column: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("click,item\n" + "".join(f"{number % 2},{number % 7}\n" for number in range(50)))
    columns = (CategoricalColumn(name="item", **column),)  # type: ignore[arg-type]
    FeatureSpec(labels=("click",), categorical=columns, vocabulary_sizes={"item": 9}).save(folder)
    return path


def test_hex_cells(criteo: Path) -> None:
    assert _prepare(criteo, "--format", "criteo-kaggle") == ("CODE 0 TENSORFLOW False", "")
    assert _run("data", "inspect", criteo.parent / "out") == ("CODE 0 TENSORFLOW False", "")
    assert _run("data", "inspect", criteo) == ("CODE 0 TENSORFLOW False", "")


@pytest.mark.parametrize("encoding", ["integer", "vocabulary"])
def test_integers_and_text(encoding: str, tmp_path: Path) -> None:
    assert _prepare(_csv(tmp_path, encoding=encoding), "--format", "csv") == ("CODE 0 TENSORFLOW False", "")


def test_records(tmp_path: Path) -> None:
    flags = ("--format", "csv", "--output", "tfrecord")
    assert _prepare(_csv(tmp_path, encoding="integer"), *flags) == ("CODE 0 TENSORFLOW False", "")


@pytest.mark.parametrize("what", ["hash", "tfrecord"])
def test_where_it_is_needed_it_comes_without_its_notes(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _csv(tmp_path, encoding="hash" if what == "hash" else "integer")
    flags = ["--output", "tfrecord"] if what == "tfrecord" else []
    if what == "tfrecord":
        monkeypatch.setenv("TFDLRM_NATIVE", "off")
    assert _prepare(path, "--format", "csv", *flags) == ("CODE 0 TENSORFLOW True", "")


def test_an_error_in_the_data(criteo: Path) -> None:
    criteo.write_bytes(criteo.read_bytes() + b"hello\n")
    said, error = _prepare(criteo, "--format", "criteo-kaggle")
    assert said == "CODE 2 TENSORFLOW False"
    assert error.startswith("tfdlrm: error: ")
    assert "line 81" in error


def test_traces(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1, 2, 1, 3")
    profile, ids = tmp_path / "profile.npz", tmp_path / "made.npy"
    assert _run("data", "trace", "profile", tmp_path / "ids.txt", profile) == ("CODE 0 TENSORFLOW False", "")
    made = _run("data", "trace", "generate", profile, ids, "--ids", 10)
    assert made == ("CODE 0 TENSORFLOW False", "")


def test_other_packages_are_not_imported_for_an_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [lambda _commands: None]
    monkeypatch.setattr(program, "installed_commands", lambda: there)
    own = program.own_commands()
    assert program.commands_for(["data", "inspect", "export"]) == own
    assert program.commands_for(["--debug", "data", "inspect"]) == own
    for argv in ([], ["--help"], ["export", "data"], ["dta"]):
        assert program.commands_for(argv) == own + there
