"""`tfdlrm checkpoint`: what is in a checkpoint, and whether it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.csv_run import csv_run
from tfdlrm.cli.program import main


@pytest.fixture
def model_dir(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A run of two epochs, to be damaged."""
    shutil.copytree(csv_run(tmp_path_factory.getbasetemp()), tmp_path / "model")
    return tmp_path / "model"


def test_inspect_shows_the_place_in_the_run_and_every_array(model_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["checkpoint", "inspect", str(model_dir)]) == 0
    shown = capsys.readouterr().out
    assert "step 20: epoch 3, batch 0 of 10" in shown
    assert "written by tfdlrm 0." in shown
    lines = {" ".join(line.split()) for line in shown.splitlines()}
    assert {
        "user/rows 13 x 4 0.000",
        "weights/0000 bottom_mlp/dense/kernel 1 x 8 0.000",
        "weights/0002 bottom_mlp/dense/kernel 8 x 4 0.000",
    } <= lines, shown


def test_verify_finds_one_changed_byte_of_a_table(model_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["checkpoint", "verify", str(model_dir)]) == 0
    assert capsys.readouterr().out.splitlines() == ["step-000000010: whole", "step-000000020: whole"]
    file = next((model_dir / "checkpoints" / "step-000000010").glob("tables.data-00000-*"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert main(["checkpoint", "verify", str(model_dir)]) == 1
    damaged, whole = capsys.readouterr().out.splitlines()
    assert damaged.startswith("step-000000010: damaged: ")
    assert "cannot be read" in damaged
    assert whole == "step-000000020: whole"
    assert main(["checkpoint", "verify", str(model_dir), "--checkpoint", "latest"]) == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("variables.npz", b"", "variables.npz: 0 bytes, "),
        ("state.json", b"[]", "state.json: 2 bytes, "),
        ("tables.index", None, "tables.index: the file is missing"),
    ],
)
def test_other_damage_is_named(
    model_dir: Path, capsys: pytest.CaptureFixture, file: str, content: bytes | None, message: str
) -> None:
    path = model_dir / "checkpoints" / "step-000000020" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert main(["checkpoint", "verify", str(model_dir), "--checkpoint", "latest"]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_no_run_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["checkpoint", command, str(tmp_path)]) == 2
    assert "no checkpoint there" in capsys.readouterr().err
