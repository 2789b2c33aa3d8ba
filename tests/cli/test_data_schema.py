"""A file of one's own, of several kinds, by the three commands: trained, exported, verified, and scored again."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from savedmodels.verify import verify
from tfdlrm.cli import main

ROWS = 600
RANDOM = np.random.default_rng(7)
USER = RANDOM.integers(0, 30, ROWS)
CLICKED = RANDOM.random(ROWS) < 0.2 + 0.5 * (USER % 3 == 0)
START = datetime.datetime(2024, 3, 1, tzinfo=datetime.UTC)


def census(folder: Path) -> tuple[Path, list[str]]:
    """No header, marks of missing values, a label of two texts, blanks behind commas."""
    path = folder / "census.data"
    work = [["Private", "?", "State-gov"][user % 3] for user in USER]
    with path.open("w") as file:
        for row in range(ROWS):
            label = "50000+." if CLICKED[row] else "- 50000."
            file.write(
                f"{17 + USER[row]}, {work[row]}, {row * 37 % 5000}, {'NA' if row % 7 else row}, Not in, {label}\n"
            )
    return path, ["--label", "6", "--positive", "50000+."]


def every_type(folder: Path) -> tuple[Path, list[str]]:
    """Parquet: times of a zone, decimals, dictionaries, lists, bytes, NaN; and types that nothing can be made of."""
    path = folder / "every.parquet"
    minutes = [START + datetime.timedelta(minutes=k) for k in range(ROWS)]
    pl.DataFrame(
        {
            "clicked": CLICKED,
            "small": pl.Series(USER, dtype=pl.Int8),
            "large": pl.Series(2**63 + USER.astype(np.uint64), dtype=pl.UInt64),
            "half": pl.Series(RANDOM.normal(size=ROWS), dtype=pl.Float32),
            "nan": [float("nan") if user == 3 else float(user) / 7 for user in USER],
            "decimal": pl.Series(USER / 100).cast(pl.Decimal(9, 2)),
            "when": pl.Series(minutes).dt.convert_time_zone("Asia/Tokyo"),
            "day": [(START + datetime.timedelta(days=k // 50)).date() for k in range(ROWS)],
            "clock": [datetime.time(user % 24) for user in USER],
            "wait": [datetime.timedelta(seconds=int(user)) for user in USER],
            "words": pl.Series([f"w{user}" if user % 5 else None for user in USER], dtype=pl.Categorical),
            "bytes": [b"b%d" % user for user in USER],
            "raw bytes": [bytes([200, user]) for user in USER],
            "tags": [["a", "b", None][: user % 4] for user in USER],
            "pair": pl.Series([[user, 1] for user in USER], dtype=pl.Array(pl.Int16, 2)),
            "lists": [[[1]]] * ROWS,
            "struct": [{"a": int(user)} for user in USER],
            "nothing": [None] * ROWS,
        }
    ).write_parquet(path)
    return path, ["--label", "clicked"]


def bandit(folder: Path) -> tuple[Path, list[str]]:
    """A log with an index without a name, timestamps with offsets, hashed users, affinities."""
    path = folder / "log.csv"
    with path.open("w") as file:
        file.write(",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n")
        for row in range(ROWS):
            at = (START + datetime.timedelta(seconds=17 * row)).isoformat(" ")
            user = f"{int(USER[row]) * 2**100:032x}"
            score = round(float(RANDOM.uniform(0.001, 0.1)), 7)
            file.write(f"{row},{at},{row % 80},{1 + row % 3},{int(CLICKED[row])},{score},{user},{USER[row] % 4}.0\n")
    return path, ["--label", "click"]


def numbers(folder: Path) -> tuple[Path, list[str]]:
    """Nothing but numbers: a model without a table."""
    path = folder / "numbers.csv"
    first, second = USER % 3 + RANDOM.random(ROWS), RANDOM.random(ROWS)
    pl.DataFrame({"y": CLICKED.astype(int), "a": first, "b": second}).write_csv(path)
    return path, ["--label", "y"]


@pytest.mark.parametrize("make", [census, every_type, bandit, numbers])
def test_three_commands(
    make: Callable[[Path], tuple[Path, list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path, flags = make(tmp_path)

    def run(*words: str) -> str:
        code = main(list(words))
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    Path("schema.yaml").write_text(run("data", "schema", path.name, *flags))
    assert f"{ROWS} rows read = {ROWS} written + 0 quarantined" in run(
        "data", "prepare", path.name, "prepared", "--schema", "schema.yaml", "--split", "random"
    )
    small = ["--set", "train.epochs=3", "--set", "model.top_mlp=[8,1]", "--quiet"]
    run("train", "dlrm", "--data", "prepared", "--model-dir", "model", *small)
    assert f"{ROWS} rows read = {ROWS} scored" in run("predict", "model", "--data", path.name, "--output", "scores.csv")
    scores = pl.read_csv("scores.csv")
    assert scores.height == ROWS
    mean = scores["probability"].to_numpy()
    assert mean[CLICKED].mean() > mean[~CLICKED].mean()
    run("export", "model", "exported")
    assert verify("exported/1", c_api=False).passed
