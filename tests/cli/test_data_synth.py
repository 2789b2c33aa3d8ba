"""`tfdlrm data synth` and `tfdlrm data trace`: what they write, what they print, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfdlrm.cli import data_synth, data_trace
from tfdlrm.cli.program import main
from tfdlrm.config import SyntheticConfig
from tfdlrm.data.trace import load_ids, save_ids
from tfdlrm.yaml_text import parse_yaml


def _add_group(commands: Any) -> None:
    """The group `data` with the two commands alone."""
    parts = commands.add_parser("data").add_subparsers(required=True)
    data_synth.add_command(parts)
    data_trace.add_command(parts)


def run(*flags: object) -> int:
    return main(["data", *map(str, flags)], [_add_group])


def written(folder: Path) -> SyntheticConfig:
    return SyntheticConfig.from_dict(parse_yaml((folder / "synthetic.yaml").read_text(), "synthetic.yaml"))


def test_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows"
    assert run("synth", out, "--preset", "tiny", "--rows", 500, "--seed", 3) == 0
    shown = capsys.readouterr().out
    assert "500 rows, " in shown
    assert f"rows: {out / 'rows.tsv'}" in shown
    assert f"schema: {out / 'schema.yaml'}" in shown
    lines = (out / "rows.tsv").read_bytes().splitlines()
    assert len(lines) == 500
    assert all(line.count(b"\t") == 39 for line in lines)


def test_every_flag_reaches_the_configuration(tmp_path: Path) -> None:
    flags = (
        "--preset tiny --rows 300 --format parquet --exponent 0.9 --hotness 3 --hotness-distribution geometric "
        "--correlation 0.2 --missing 0.1 --days 3 --drift 0.05 --cold 0.1 --seed 7 --file-per-day --quiet"
    )
    assert run("synth", tmp_path / "rows", *flags.split()) == 0
    config = written(tmp_path / "rows")
    assert config.num_rows == 300
    assert config.power_law_exponent == 0.9
    assert config.hotness == 3
    assert config.hotness_distribution == "geometric"
    assert (config.correlation, config.missing_fraction) == (0.2, 0.1)
    assert (config.days, config.drift, config.cold_fraction, config.seed) == (3, 0.05, 0.1, 7)
    names = sorted(file.name for file in (tmp_path / "rows").iterdir())
    assert names == ["day_0.parquet", "day_1.parquet", "day_2.parquet", "schema.yaml", "synthetic.yaml"]


def test_compressed_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--preset tiny --rows 100 --days 2 --file-per-day --compress gz"
    assert run("synth", tmp_path / "rows", *flags.split()) == 0
    assert f"rows: {tmp_path / 'rows' / 'day_0.tsv.gz'} to day_1.tsv.gz" in capsys.readouterr().out


def test_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("synth", tmp_path / "rows", "--preset", "tiny", "--rows", 100)
    assert run(*flags) == 0
    assert run(*flags) == 2
    assert "there is something already (rows.tsv, schema.yaml, synthetic.yaml)" in capsys.readouterr().err
    assert run(*flags, "--force") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--preset smal", "preset='smal' is not known, did you mean 'small'?"),
        ("--preset mlperf-dcnv2 --rows 10", "column 'cat_1' has hotness 3. Write csv or parquet"),
        ("--preset tiny --drift 0.1", "drift=0.1 needs days"),
        ("--preset tiny --hotness 1,2", "hotness has 2 numbers for 26 vocabulary_sizes"),
        ("--hotness many", "'many' is no hotness. Write it as 3, or one a column as 3,2,1"),
        ("--rows 0", "num_rows=0 is too small"),
    ],
)
def test_wrong_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str) -> None:
    assert run("synth", tmp_path / "rows", *flags.split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_a_bar_on_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run("synth", tmp_path / "rows", "--preset", "tiny", "--rows", 100) == 0
    assert "100 rows" in capfd.readouterr().out


def test_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_ids(tmp_path / "ids.txt", np.array([5, 5, 7, 5, 8, 7]))
    assert run("trace", "profile", tmp_path / "ids.txt", tmp_path / "profile.txt") == 0
    assert "6 ids, 3 different, distances up to 3" in capsys.readouterr().out
    flags = ("trace", "generate", tmp_path / "profile.txt")
    assert run(*flags, tmp_path / "new.npy", "--ids", 1000, "--seed", 4) == 0
    assert "1,000 ids of 3" in capsys.readouterr().out
    ids = load_ids(tmp_path / "new.npy")
    assert set(ids.tolist()) == {5, 7, 8}
    assert run(*flags, tmp_path / "rand.npy", "--ids", 1000, "--seed", 4, "--method", "rand") == 0
    assert (load_ids(tmp_path / "rand.npy") != ids).any()
    assert run("trace", "profile", tmp_path / "ids.txt", tmp_path / "lines.npz", "--line-size", 8, "--padding") == 0
    assert run("trace", "generate", tmp_path / "lines.npz", tmp_path / "x.bin", "--ids", 5, "--padding") == 0


def test_wrong_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trace", "profile", tmp_path / "none.txt", tmp_path / "p") == 2
    assert "none.txt: there is no such file (a trace is expected)" in capsys.readouterr().err
    (tmp_path / "words.txt").write_text("a b c")
    assert run("trace", "profile", tmp_path / "words.txt", tmp_path / "p") == 2
    assert "words.txt: there is something that is no number" in capsys.readouterr().err
    assert run("trace", "generate", tmp_path / "words.txt", tmp_path / "x", "--ids", 3) == 2
    assert "1 lines of text. A profile has three" in capsys.readouterr().err
