"""The format of what a path names, and the data section that reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data import sample_rows as sample
from tfdlrm.config import DataConfig, preset
from tfdlrm.data.raw_formats import AVAZU_COLUMNS, avazu_feature_spec, data_at, default_spec, guess_format

CRITEO = sample.criteo_text(sample.criteo_rows(3))
FILES = {
    "rows.csv": (b"a,b\n1,2\n", "csv"),
    "rows.csv.gz": (b"a,b\n1,2\n", "csv"),
    "train.txt": (CRITEO, "criteo"),
    "test.txt": (b"\n".join(line.split(b"\t", 1)[1] for line in CRITEO.splitlines()), "criteo"),  # without labels
    "rows.tsv": (b"a\tb\n1\t2\n", "csv"),
    "avazu": (",".join(("id", "click", "hour", *AVAZU_COLUMNS)).encode() + b"\n", "avazu"),
    "no suffix": (b"PAR1....", "parquet"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (text, _) in FILES.items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / "rows.feather").write_bytes(b"ARROW1..")
    (tmp_path / "prepared" / "test").mkdir(parents=True)
    (tmp_path / "prepared" / "manifest.json").write_text(json.dumps({}))
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "u.data").write_text("1\t2\t3\t4\n")
    return tmp_path


def test_each_is_told_by_its_name_or_first_bytes(folder: Path) -> None:
    assert {name: guess_format(folder / name)[0] for name in FILES} == {name: kind for name, (_, kind) in FILES.items()}
    assert guess_format(folder / "rows.feather") == ("arrow", "by its first bytes")
    assert guess_format(folder / "rows.tsv", "criteo")[0] == "criteo"  # nothing told
    assert [guess_format(folder / name)[0] for name in ("prepared", "prepared/test", "ml")] == [
        "prepared",
        "prepared",
        "movielens",
    ]


def test_the_same_format_keeps_the_section(folder: Path) -> None:
    kaggle = preset("criteo-kaggle").data
    assert data_at(kaggle, folder / "train.txt") == DataConfig.from_dict(
        {**kaggle.to_dict(), "path": str(folder / "train.txt")}
    )
    own = DataConfig(format="criteo", schema=sample.SPEC, split="time")  # columns of its own
    assert data_at(own, folder / "rows.tsv").format == "criteo"


def test_another_format_keeps_what_has_a_meaning(folder: Path) -> None:
    own = DataConfig(format="csv", split="time", schema=sample.SPEC, id_modulo=7, max_rows=9, train_fraction=0.5)
    parquet = data_at(own, folder / "no suffix")
    assert parquet == DataConfig.from_dict({**own.to_dict(), "format": "parquet", "path": str(folder / "no suffix")})
    path = str(folder / "prepared")
    assert data_at(own, path) == DataConfig(format="prepared", path=path, max_rows=9, train_fraction=0.5)
    for name in ("quickstart", "criteo-kaggle"):  # rows of a file have an order, and no days
        found = data_at(preset(name).data, folder / "rows.csv")
        assert (found.format, found.split, found.synthetic) == ("csv", "time", None)
    assert data_at(DataConfig(format="criteo"), folder / "rows.csv").split == "none"


def test_a_table_with_names_is_not_criteos(folder: Path) -> None:
    names = b"\t".join(b"name %d" % k for k in range(40))
    (folder / "named.tsv").write_bytes(names + b"\n" + CRITEO)
    found = data_at(preset("criteo-kaggle").data, folder / "named.tsv")
    assert (found.format, found.split) == ("csv", "time")
    (folder / "bad.tsv").write_bytes(CRITEO.replace(b"\t", b"\tx", 1))  # one bad cell in the first line
    assert data_at(preset("criteo-kaggle").data, folder / "bad.tsv").format == "criteo"


def test_avazu_is_csv_of_known_columns(folder: Path) -> None:
    for config in (DataConfig(format="csv"), DataConfig(format="avazu"), preset("quickstart").data):
        found = data_at(config, folder / "avazu")
        assert (found.format, found.schema) == ("avazu", None)
    assert default_spec("avazu", folder / "avazu", "data.schema") == avazu_feature_spec()


def test_what_cannot_be_told_is_named(folder: Path) -> None:
    (folder / "empty.csv").touch()
    (folder / "prepared" / "test" / "part-00000.arrow").write_bytes(b"ARROW1..")
    (folder / "csv.parquet").write_bytes(b"a,b\n1,2\n")
    for name, error, text in (
        ("nothing.csv", FileNotFoundError, "there is no such file"),
        ("empty.csv", ValueError, "is empty"),
        ("prepared/test/part-00000.arrow", ValueError, "one file of prepared data. Give the folder it belongs to"),
        ("csv.parquet", ValueError, "Parquet by its name, and not by its first bytes, b'a,b"),
        (".", ValueError, "a folder with neither manifest.json"),
    ):
        with pytest.raises(error, match=text):
            data_at(DataConfig(format="csv"), folder / name)
