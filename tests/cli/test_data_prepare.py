"""`tfdlrm data prepare`: its flags, its words, and a model trained on what it wrote."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.data import sample_rows as sample
from tfdlrm.cli import main
from tfdlrm.cli.data_prepare import parse_size


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A Criteo file of 700 rows."""
    path = tmp_path / "train.txt"
    path.write_bytes(sample.criteo_text(sample.criteo_rows(700)))
    return path


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("2G", 2 * 10**9), ("512MiB", 2**29), ("1.5 gb", 1_500_000_000), ("1000000", 10**6)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "two", "2TB", "-1GB", "2 GB GB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a size. Write it as 2GB"):
        parse_size(text)


def test_prepare_and_train(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "prepared"
    assert main(["data", "prepare", str(raw), str(output), "--format", "criteo-kaggle", "--memory", "200MB"]) == 0
    said = capsys.readouterr().out
    assert "700 rows read = 700 written + 0 quarantined in" in said
    assert "train: 600 rows, 1 files" in said
    assert "test: 50 rows" in said
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["config"]["split"] == "criteo-kaggle"
    flags = ["--set", "train.epochs=1", "--set", "model.bottom_mlp=[16]", "--set", "model.top_mlp=[8,1]", "--quiet"]
    for preset in ("dlrm", "dcnv2", "criteo-kaggle", "quickstart"):
        code = main(["train", preset, "--data", str(output), "--model-dir", str(tmp_path / preset), *flags])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert "700 rows read = 700 used + 0 set aside" in said.out
    code = main(["evaluate", str(tmp_path / "dlrm"), "--data", str(output / "test")])
    assert code == 0, capsys.readouterr().err
    assert main(["train", "dlrm", "--data", str(output / "train"), "--model-dir", str(tmp_path / "part")]) == 2
    assert f"train: a part of prepared data, where all of it is expected. Give {output}." in capsys.readouterr().err


def test_quarantined_rows_are_counted_and_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw.write_bytes(raw.read_bytes() + b"hello\n")
    command = ["data", "prepare", str(raw), str(tmp_path / "out"), "--format", "criteo-kaggle"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("tfdlrm: error: ")
    assert "line 701" in error
    assert "--bad-rows quarantine" in error
    assert main([*command, "--bad-rows", "quarantine", "--restart"]) == 0
    said = capsys.readouterr().out
    assert "701 rows read = 700 written + 1 quarantined" in said
    assert f"quarantined rows: {tmp_path / 'out' / 'quarantine.tsv'}" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "hash"], "split='hash' and split_column=None do not fit"),
        (["--extend"], "extend has no meaning without vocabularies"),
        (["--min-count", "3"], "column 'cat_1' has no out-of-vocabulary row for rarer values"),
        (["--min-count", "0"], "min_count"),
        (["--keep-negatives", "0"], "keep_negatives"),
        (["--memory", "1MB"], "memory=1,000,000 bytes is too little"),
        (["--schema", "nowhere.yaml"], "no schema there"),
        (["--train-fraction", "0.95", "--validation-fraction", "0.2"], "add up to more than 1"),
        (["--vocabularies", "nowhere"], "no preprocessing there"),
    ],
)
def test_options_that_do_not_fit(
    flags: list[str], message: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "prepare", str(raw), str(tmp_path / "out"), "--format", "criteo-kaggle", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_place_that_cannot_be_written(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["data", "prepare", str(raw), str(tmp_path / "file" / "out"), "--format", "criteo-kaggle"]) == 2
    assert "Not a directory" in capsys.readouterr().err
