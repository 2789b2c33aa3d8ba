"""Sizes by the number of training rows: chosen, said, and no more than a default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tfdlrm
from tfdlrm.cli import main
from tfdlrm.config import ANY_DATA, DataConfig, ExperimentConfig, preset, sized
from tfdlrm.data.inspect.label_rates import count_training_rows
from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.schema import FeatureSpec


@pytest.mark.parametrize("name", ANY_DATA)
def test_batches_grow_and_epochs_shrink_with_the_rows(name: str) -> None:
    given = preset(name)
    found = [sized(given, rows) for rows in (1, 19_999, 20_000, 999_999, 10**6, 10**7, 10**9)]
    assert [config.train.global_batch_size for config in found] == [128, 128, 512, 512, 2048, 8192, 8192]
    assert [config.train.epochs for config in found] == [20, 20, 20, 20, 2, 1, 1]
    assert found[2] == given  # what the preset's file shows
    others = {"global_batch_size": 1, "epochs": 1}
    for config in found:
        assert replace(config.train, **others) == replace(given.train, **others)
        assert replace(config.model, top_mlp=(1,)) == replace(given.model, top_mlp=(1,))


ROWS = 60
FRAME = pl.DataFrame({"y": [0, 1] * (ROWS // 2), "x": np.arange(ROWS) * 0.5, "c": ["a", "b", "c"] * (ROWS // 3)})


def test_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    spec = FeatureSpec.infer(FRAME, "y")
    FRAME.write_csv(tmp_path / "rows.csv")
    FRAME.write_csv(tmp_path / "bare.csv", include_header=False)
    FRAME.write_parquet(tmp_path / "rows.parquet")
    prepare(PrepareConfig(format="csv", schema=spec, split="time"), [tmp_path / "rows.csv"], tmp_path / "prepared")
    bare = FeatureSpec.from_dict({**spec.to_dict(), "raw": {"columns": ["y", "x", "c"]}})

    def count(name: str, **fields: object) -> int | None:
        return count_training_rows(DataConfig.from_dict({"path": str(tmp_path / name), **fields}))

    assert count("rows.csv", format="csv", split="none") == ROWS
    assert count("rows.csv", format="csv", split="time", train_fraction=0.5) == ROWS // 2
    assert count("rows.csv", format="csv", split="none", max_rows=7) == 7
    assert count("bare.csv", format="csv", split="none", schema=bare.to_dict()) == ROWS
    assert count("rows.parquet", format="parquet", split="none") == ROWS
    assert count("prepared", format="prepared", split="none") == 48
    assert count_training_rows(preset("quickstart").data) is None
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        count("none.csv", format="csv")


def test_what_was_chosen_is_said_and_set_goes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = FeatureSpec.infer(FRAME, "y")
    FRAME.write_csv(tmp_path / "rows.csv")
    prepare(PrepareConfig(format="csv", schema=spec, split="time"), [tmp_path / "rows.csv"], tmp_path / "prepared")
    command = ["train", "dlrm", "--data", str(tmp_path / "prepared"), "--set", "train.epochs=1"]
    assert main([*command, "--model-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "for 48 training rows: global_batch_size=128, epochs=20, top_mlp=64-32-1 (change any with --set)" in said
    saved = ExperimentConfig.from_file(tmp_path / "run" / "config.yaml").train
    assert (saved.global_batch_size, saved.epochs) == (128, 1)
    model = tfdlrm.fit(FRAME, label="y", overrides=["train.epochs=1"], model_dir=tmp_path / "frame")
    saved = ExperimentConfig.from_file(model.model_dir / "config.yaml").train
    assert (saved.global_batch_size, saved.epochs) == (128, 1)
