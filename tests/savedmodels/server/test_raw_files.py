"""`tfdlrm query --schema`: what predict reads, a server answers alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tfdlrm
from savedmodels.client.raw_files import find_schema
from savedmodels.export import export
from savedmodels.server.config import ModelConfig
from savedmodels.server.options import ServerOptions
from savedmodels.server.program import Server
from tfdlrm.cli import main
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells

ROWS = 60
SPEC = FeatureSpec(
    labels=("click",),
    dense=(DenseColumn(name="age", transform="standardize", missing=40.0), DenseColumn(name="price")),
    categorical=(
        CategoricalColumn(name="age in bins", source="age", encoding="bins", bins=4),
        CategoricalColumn(name="shop", encoding="vocabulary", id_policy="oov"),  # digits
        CategoricalColumn(name="color", encoding="hash"),
        CategoricalColumn(name="tags", encoding="vocabulary", id_policy="oov", hotness=None, separator="|"),
        CategoricalColumn(name="slot"),
        CategoricalColumn(name="code", encoding="hex", id_policy="oov"),
        CategoricalColumn(name="width", encoding="bins", bins=3),
        CategoricalColumn(name="hour", source="at", encoding="hour"),
    ),
    keys=("who",),
    vocabulary_sizes={"color": 11, "slot": 5},
    ignored=("note",),
    raw=RawCells(missing=("?",), label_values={"click": ("no", "yes")}),
)


def rows() -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "who": [f"u{k}" for k in range(ROWS)],
            "click": random.choice(["yes", "no"], ROWS).tolist(),
            "age": ["?" if k % 9 == 0 else str(k) for k in range(ROWS)],
            "price": [f"{k / 4}" for k in range(ROWS)],
            "shop": ["" if k % 7 == 0 else f"{k % 5:03d}" for k in range(ROWS)],
            "color": random.choice(["red", "?", "blue"], ROWS).tolist(),
            "tags": ["|".join("abc"[: k % 4]) for k in range(ROWS)],
            "slot": [str(k % 5) for k in range(ROWS)],
            "code": [f"{k % 6 + 10:x}" for k in range(ROWS)],
            "width": ["?" if k % 8 == 0 else str(k * 0.5) for k in range(ROWS)],
            "at": ["" if k % 5 == 0 else f"2024-01-{k % 28 + 1:02d} {k % 24:02d}:00" for k in range(ROWS)],
            "note": ["x"] * ROWS,
        }
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a run and its export, and where a server answers."""
    folder = tmp_path_factory.mktemp("raw")
    small = ["train.epochs=1", "model.embedding_dim=4", "model.bottom_mlp=[4]", "model.top_mlp=[4,1]"]
    trained = tfdlrm.fit(rows(), schema=SPEC, overrides=small, model_dir=folder / "run")
    export(trained.model, folder / "exported", preprocessing=trained.preprocessing)
    configs = [ModelConfig(name="default", base_path=folder / "exported")]
    with Server(configs, ServerOptions(grpc_port=0, rest_port=0)) as server:
        assert server.wait_until_ready(60.0)
        yield folder, f"127.0.0.1:{server.grpc_port}"


FILES = {
    "csv": lambda frame, path: frame.write_csv(path),
    "csv.gz": lambda frame, path: frame.write_csv(path, compression="gzip"),
    "tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "parquet": lambda frame, path: frame.write_parquet(path),
    "parquet of numbers": lambda frame, path: frame.with_columns(
        pl.col("age", "width").cast(pl.Float64, strict=False),
        pl.col("price").cast(pl.Float64),
        pl.col("slot").cast(pl.Int64),
        pl.col("tags").str.split("|").list.eval(pl.element().filter(pl.element() != "")),
    ).write_parquet(path),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_file_is_answered_as_it_is_predicted(
    served: tuple[Path, str], kind: str, labelled: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address = served
    path = tmp_path / f"rows.{kind.partition(' ')[0]}"
    FILES[kind](rows() if labelled else rows().drop("click"), path)
    code = main(["predict", str(folder / "run"), "--data", str(path), "--output", str(tmp_path / "scores.csv")])
    assert code == 0, capsys.readouterr().err
    expected = pl.read_csv(tmp_path / "scores.csv")["logit"].to_numpy()
    answers = tmp_path / "answers.jsonl"
    command = ["query", address, str(path), "--schema", str(folder / "exported"), "--max-rows", "7"]
    assert main([*command, "--output", str(answers)]) == 0
    assert "60 rows answered" in capsys.readouterr().err
    found = [json.loads(line)["logit"][0] for line in answers.read_text().splitlines()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_where_a_schema_is_found(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = served
    expected = find_schema(folder / "exported")
    assert expected.categorical[0].edges
    SPEC.save(tmp_path)
    for path in (folder / "exported" / "1", folder / "run", folder / "run" / "preprocessing" / "schema.yaml"):
        assert find_schema(path) == expected
    assert find_schema(tmp_path) == find_schema(tmp_path / "schema.yaml") == SPEC
    with pytest.raises(FileNotFoundError, match="no schema there"):
        find_schema(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        ({"age": "old"}, [], "line 3, column 'age': not a number (found 'old'). Give a number, or an empty cell"),
        ({"at": "soon"}, [], "line 3, column 'at': not a time (found 'soon')"),
        ({"slot": "5"}, [], "line 3, column 'slot': the id is not in [0, 5)"),
        ({}, ["--signature", "predict"], "signature 'predict' takes columns, and rows read by a schema are raw"),
        ({}, ["--format", "csv"], "--schema tells how a file is read"),
    ],
)
def test_what_is_refused(
    served: tuple[Path, str],
    change: dict[str, str],
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, address = served
    frame = rows()
    bad = frame[1:2].with_columns(pl.lit(cell).alias(name) for name, cell in change.items())
    pl.concat([frame[:1], bad, frame[2:]]).write_csv(tmp_path / "rows.csv")
    (tmp_path / "before.jsonl").write_text("kept")
    command = ["query", address, str(tmp_path / "rows.csv"), "--schema", str(folder / "exported"), *flags]
    assert main([*command, "--output", str(tmp_path / "before.jsonl")]) == 2
    assert (tmp_path / "before.jsonl").read_text() == "kept"
    said = capsys.readouterr().err
    assert message in said
    assert "--bad-rows" not in said  # which query does not have
