"""`tfdlrm data schema` and `FeatureSpec.infer`: what is proposed for which cells, and that the readers read it so."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfdlrm
from tfdlrm.cli import main
from tfdlrm.config import DataConfig
from tfdlrm.data import open_dataset
from tfdlrm.data.cell_kinds import written_otherwise
from tfdlrm.data.infer import propose
from tfdlrm.data.infer_files import propose_for_file
from tfdlrm.data.typed import to_polars
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

ROWS = 300
RANDOM = np.random.default_rng(11)
WHOLE = RANDOM.integers(0, 80, ROWS)
KINDS = RANDOM.choice(["red", "green", "blue"], ROWS)


def cells(values: object) -> list[str]:
    return [str(value) for value in values]  # type: ignore[attr-defined]


def vocabulary(**given: object) -> dict[str, object]:
    return {"encoding": "vocabulary", "id_policy": "oov", **given}


# column of text -> the part of the schema it comes to, and what it is there
COLUMNS: dict[str, tuple[list[str], str, dict[str, object]]] = {
    "ages": (cells(WHOLE), "dense", {"transform": "standardize"}),
    "prices": (cells(RANDOM.normal(9, 1, ROWS).round(3)), "dense", {"transform": "standardize"}),
    "negative": (cells(WHOLE - 40), "dense", {"transform": "standardize"}),
    "clicks": (cells(np.where(WHOLE < 60, 0, WHOLE**3)), "dense", {"transform": "log1p"}),
    "numbers and marks": (["n/a" if k % 9 == 0 else str(k % 70) for k in range(ROWS)], "dense", {"missing": 32.0}),
    "few numbers": (cells(WHOLE % 7), "categorical", vocabulary()),
    "item_id": (cells(WHOLE[::-1]), "categorical", vocabulary()),
    "leading zeros": ([f"{n:05d}" for n in WHOLE], "categorical", vocabulary()),
    "spread numbers": (cells((WHOLE + 1) * 7919), "categorical", vocabulary()),
    "words": (list(KINDS), "categorical", vocabulary()),
    "true or false": (["True" if n % 3 else "False" for n in WHOLE], "categorical", vocabulary()),
    "tags": (["a|b" if n % 2 else "b|c|d" for n in WHOLE], "categorical", vocabulary()),  # two cells alone
    "genres": (
        ["|".join(sorted(set(cells(RANDOM.integers(0, 9, 1 + n % 3))))) for n in WHOLE],
        "categorical",
        vocabulary(hotness=None, separator="|"),
    ),
    "ids": (
        [" ".join(cells(RANDOM.integers(100, 200, 1 + n % 4))) for n in WHOLE],
        "categorical",
        vocabulary(hotness=None, separator=" "),
    ),
    "two words": (["dark red" if n % 2 else "light green" for n in WHOLE], "categorical", vocabulary()),
    "row": (cells(range(ROWS)), "keys", {}),
    "session": ([f"{n:x}" for n in RANDOM.integers(2**59, 2**60, ROWS)], "keys", {}),
    "large": (cells(RANDOM.integers(10**17, 10**18, ROWS)), "keys", {}),
    "day": ([f"2024-0{1 + n % 9}-11" for n in WHOLE], "keys", {}),
    "moment": ([f"2024-01-02 {n % 24:02d}:00:00" for n in WHOLE], "keys", {}),
    "event_time": (cells(1_700_000_000 + WHOLE * 1000), "keys", {}),
    "hour": ([f"141021{n % 24:02d}" for n in WHOLE], "keys", {}),
    "german dates": ([f"{1 + n % 28}.1.2024" for n in WHOLE], "ignored", {}),
    "nothing": ([""] * ROWS, "ignored", {}),
    "only marks": (["?"] * ROWS, "ignored", {}),
    "constant": (["7"] * ROWS, "ignored", {}),
    "words again": (list(KINDS), "ignored", {}),
    "told": ([f"{n} is what somebody wrote here at some length" for n in range(ROWS)], "ignored", {}),
    "huge": (["1e300", *cells(WHOLE[1:])], "categorical", vocabulary()),
    "thousands": ([f'"{1 + n},{n:03d}"' for n in WHOLE], "ignored", {}),
    "decimal commas": ([f'"{n},{n % 7}"' for n in WHOLE + 4000], "ignored", {}),
    "money": ([f'"${n},{n + 100}"' for n in WHOLE + 20], "ignored", {}),
    "percent": ([f"{n}.5%" for n in WHOLE], "ignored", {}),
    "english dates": ([f"Jan {1 + n % 28} 2024" for n in WHOLE], "ignored", {}),
    "nearly dates": (["2024-13-01", *(f"2024-01-{1 + n % 28:02d}" for n in WHOLE[1:])], "ignored", {}),
    "day number": ([f"202401{1 + n % 28:02d}" for n in WHOLE], "keys", {}),
    "shuffled row": (cells(RANDOM.permutation(ROWS)), "keys", {}),
    "account_number": (cells((WHOLE + 1) * 104_729), "categorical", vocabulary()),
    "num_seen": (cells((WHOLE + 1) * 31), "dense", {"transform": "standardize"}),
    "customer": (cells(100_000 + WHOLE), "categorical", vocabulary()),
    "user_age": (cells(WHOLE + 3), "dense", {"transform": "standardize"}),
    "price_cents": (cells(RANDOM.integers(1000, 10**6, ROWS)), "dense", {"transform": "standardize"}),
    "exponential": (cells(RANDOM.exponential(3000, ROWS).astype(int)), "dense", {"transform": "log1p"}),
    "probability": ([f"{n:x}" for n in RANDOM.integers(2**59, 2**60, ROWS)], "ignored", {}),
    "dense": (cells([f"d{n % 5}" for n in WHOLE]), "ignored", {}),
    "grade": (list(RANDOM.choice(["n/a", "good", "bad"], ROWS)), "categorical", vocabulary()),
    "nearly numbers": (["about 5", *cells(RANDOM.normal(9, 1, ROWS - 1))], "categorical", vocabulary()),
}
LABELS = cells(WHOLE % 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("infer") / "clicks.csv"
    columns = {"click": LABELS, **{name: column for name, (column, _, _) in COLUMNS.items()}}
    lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_column_becomes(name: str, table: Path) -> None:
    spec = propose_for_file(table, "click").spec
    _, part, expected = COLUMNS[name]
    found = {getattr(item, "name", item): item for item in getattr(spec, part)}
    assert name in found, [
        key for key in ("dense", "categorical", "keys", "ignored") if name in str(getattr(spec, key))
    ]
    assert {key: getattr(found[name], key) for key in expected} == expected
    assert spec.raw.missing == ("?", "n/a")
    assert spec.raw.columns == ()


def test_the_file_reads_back_and_every_row_is_used(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "schema", str(table), "--label", "click"]) == 0
    said = capsys.readouterr()
    spec = FeatureSpec.from_yaml(said.out)
    assert spec == propose_for_file(table, "click").spec
    assert f"# Proposed from all {ROWS} rows of clicks.csv (fields by comma, a header line)" in said.out
    for line in (
        "  # one value, '7', in every row\n  - constant\n",
        "  # the same as 'words'\n  - words again\n",
        "  # dates such as ",
        "99.7% are numbers, and 'about 5' is not: mend the cells to have it as a number\n  - {name: nearly numbers, ",
        "numbers with separators of thousands such as ",
        "numbers with a decimal comma such as ",
        "times, but for 1 row such as '2024-13-01': mend them to use the column",
        "% of the cells empty or 'n/a', most often ",
        "every row has its own value; predict writes a column of this name: rename it to keep it as a key",
        "a time (YYMMDDHH): rows can be split by it",
    ):
        assert line in said.out, line
    assert "next: tfdlrm data prepare" in said.err
    assert "--schema schema.yaml --split time-column --split-column day\n" in said.err
    config = DataConfig(format="csv", path=str(table), split="none", schema=spec)
    assert open_dataset(config).books.used == ROWS


def test_the_median_stands_within_the_numbers() -> None:
    for start, step in ((1_000_000_000.5, 1.0), (1e-7, 1e-12), (-5e15, 2.5e12)):
        values = [start + k * step for k in range(300)]
        column = propose(pl.DataFrame({"y": [0, 1] * 150, "x": [*values[:-1], None]}), "y").spec.dense[0]
        assert column.missing is not None
        assert values[140] < column.missing < values[160]


def test_labels(tmp_path: Path) -> None:
    def pair(values: list[object], positive: str | None = None) -> object:
        frame = pl.DataFrame({"y": values, "x": list(range(len(values)))}, strict=False)
        return propose(frame, "y", positive=positive).spec.raw.label_values.get("y")

    assert pair([0, 1, 1]) is None
    assert pair([True, False]) is None
    assert pair(["1", " 0", "1"]) is None
    assert pair([0.0, 1.0, None]) is None
    assert pair(["0", "1"], "0") == ("1", "0")
    assert pair(["YES", "no"]) == ("no", "YES")
    assert pair([" t", "f "]) == ("f", "t")
    assert pair([-1, 1]) == ("-1", "1")
    assert pair(["cat", "dog"], " cat ") == ("dog", "cat")
    with pytest.raises(ValueError, match="'cow' is neither: --positive"):
        pair(["cat", "dog"], "cow")


def test_a_number_that_the_label_does_not_go_straight_with_is_in_bins_too() -> None:
    random, rows = np.random.default_rng(0), 6000
    columns = {name: random.normal(size=rows) for name in ("straight", "bent", "step", "nothing")}
    columns["tail"] = np.exp(2.0 * columns["straight"])
    logit = columns["straight"] + 1.5 * np.abs(columns["bent"]) + 2.0 * (columns["step"] > 1.2) - 1.0
    frame = {"y": random.random(rows) < 1.0 / (1.0 + np.exp(-logit)), **columns, "bent_bins": ["a", "b"] * (rows // 2)}
    proposal = propose(frame, "y")
    found = {column.name: column.source for column in proposal.spec.categorical if column.encoding == "bins"}
    assert found == {"bent_bins_": "bent", "step_bins": "step"}
    assert {column.name for column in proposal.spec.dense} == set(columns)
    assert proposal.reasons["step_bins"] == "bins of 'step': the label does not go straight with it"
    assert "vocabulary_sizes" not in proposal.to_yaml()
    few = propose({name: values[:80] for name, values in frame.items()}, "y").spec
    assert not any(column.encoding == "bins" for column in few.categorical)


@pytest.mark.parametrize(
    ("step", "is_whole", "expected"),
    [
        (datetime.timedelta(minutes=1), True, ()),
        (datetime.timedelta(minutes=1), False, ("hour", "weekday")),
        (datetime.timedelta(minutes=50), True, ("hour",)),
        (datetime.timedelta(hours=7), True, ("hour", "weekday")),
        (datetime.timedelta(days=1), True, ("weekday",)),
        (datetime.timedelta(days=1), False, ("weekday",)),
    ],
)
def test_parts_of_times_that_come_again(step: datetime.timedelta, is_whole: bool, expected: tuple[str, ...]) -> None:
    moments = [datetime.datetime(2024, 1, 1) + k * step for k in range(60)]
    for cells in (moments, [str(moment) for moment in moments], [int(moment.timestamp()) for moment in moments]):
        spec = propose({"y": [0, 1] * 30, "x": ["a", "b", "c"] * 20, "at": cells}, "y", is_whole=is_whole).spec
        assert [column.encoding for column in spec.categorical if column.source == "at"] == list(expected)
        assert spec.keys == ("at",)


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%y%m%d%H", "seconds and a fraction"])
def test_digits_that_are_times_are_no_amounts(form: str) -> None:
    """Whatever the column's name is; of a float in seconds its name has to say so."""
    moments = [datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=397 * k) for k in range(100)]
    cells = [m.timestamp() + 0.25 if "frac" in form else int(m.strftime(form)) for m in moments]
    for name in ("when",) if "frac" in form else ("when", "q"):
        rows = {"y": [0, 1] * 50, "x": ["a", "b"] * 50, name: cells}
        for frame in (pl.DataFrame(rows), pl.DataFrame(rows).cast({name: pl.String})):
            proposal = propose(frame, "y")
            assert proposal.spec.keys == (name,)
            assert proposal.time_key == name
            assert [column.encoding for column in proposal.spec.categorical if column.source] == ["hour", "weekday"]


def test_numbers_of_as_many_digits_are_no_times() -> None:
    random = np.random.default_rng(0)
    cells = random.integers(20_000_000_000, 21_000_000_000, 100) * 10  # of 12 digits
    assert propose({"y": [0, 1] * 50, "x": cells, "c": ["a", "b"] * 50}, "y").time_key is None


def test_an_infinite_number_is_a_bad_row_and_no_text() -> None:
    values = np.random.default_rng(0).normal(size=100)
    values[3] = np.inf
    for cells in (values, [str(value) for value in values]):
        proposal = propose({"y": [0, 1] * 50, "x": cells, "c": ["a", "b"] * 50}, "y")
        assert [column.name for column in proposal.spec.dense] == ["x"]
        assert proposal.has_bad_rows
        assert "1 infinite: such rows are bad (--bad-rows quarantine)" in proposal.reasons["x"]


def test_columns_that_polars_does_not_know() -> None:
    frame = pd.DataFrame({"y": [0, 1] * 20, "x": [0.5, 1.5] * 20, "day": pd.period_range("2024-01-01", periods=40)})
    assert "day" in propose(frame, "y").spec.ignored
    with pytest.raises(ValueError, match="Give it values of one type"):
        propose(frame.assign(mixed=[1, "a"] * 20), "y")


def test_typed_columns() -> None:
    rows = 60
    frame = pl.DataFrame(
        {
            "click": [n % 3 == 0 for n in range(rows)],
            "price": [n * 1.5 for n in range(rows)],
            "when": [datetime.datetime(2024, 1, 1, n % 24) for n in range(rows)],
            "day": [datetime.date(2024, 1, 1 + n % 28) for n in range(rows)],
            "tags": [["a", "b"][: n % 3] for n in range(rows)],
            "pair": [[n % 5, 3] for n in range(rows)],
            "color": pl.Series(["red", "green", None] * 20, dtype=pl.Categorical),
            "odd": [{"a": 1}] * rows,
            "wait": [datetime.timedelta(n) for n in range(rows)],
            "bytes": [b"ab", b"cd"] * 30,
            "nothing": [None] * rows,
            "flag": [n % 2 == 0 for n in range(rows)],
        }
    )
    spec = propose(frame, "click").spec
    assert [column.name for column in spec.dense] == ["price"]
    assert {column.name: column.hotness for column in spec.categorical} == {
        "day_weekday": 1, "tags": None, "pair": 2, "color": 1, "bytes": 1, "flag": 1
    }  # fmt: skip
    assert spec.keys == ("when", "day")
    assert set(spec.ignored) == {"odd", "wait", "nothing"}


def test_a_parquet_file_with_columns_that_nothing_reads(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame = pl.DataFrame({"y": [0, 1] * 20, "x": [0.5, 1.5] * 20, "odd": [{"a": 1}] * 40, "c": ["a", "?"] * 20})
    frame.write_parquet(path)
    spec = propose_for_file(path, "y").spec
    assert spec.ignored == ("odd",)
    splits = open_dataset(DataConfig(format="parquet", path=str(path), split="none", schema=spec))
    assert splits.books.used == 40


def test_nan_is_a_missing_number(tmp_path: Path) -> None:
    """Of Parquet files and frames; text that says nan is found as any mark is."""
    frame = pl.DataFrame({"y": [0, 1] * 20, "x": [0.5, float("nan"), 2.5, 1.5] * 10})
    spec = propose(frame, "y").spec
    assert spec.raw.missing == ("NaN",)
    assert spec.dense[0].missing == 1.5
    frame.write_parquet(tmp_path / "rows.parquet")
    config = DataConfig(format="parquet", path=str(tmp_path / "rows.parquet"), split="none", schema=spec)
    splits = open_dataset(config)
    assert splits.books.used == 40
    assert splits.train.columns.dense[1, 0] == splits.train.columns.dense[3, 0]


def test_whole_numbers_beyond_a_float_are_names() -> None:
    frame = pl.DataFrame({"y": [0, 1] * 20, "x": pl.Series([2**63 + k % 3 for k in range(40)], dtype=pl.UInt64)})
    assert propose(frame, "y").spec.feature_names == ("x",)


def test_lists_of_one_value_are_bags() -> None:
    frame = pl.DataFrame({"y": [0, 1] * 20, "x": [[k % 3] for k in range(40)]})
    assert propose(frame, "y").spec.categorical[0].hotness is None


def test_many_values_are_hashed() -> None:
    values = [f"u{n}" for n in RANDOM.integers(0, 10**9, 60_000)]
    spec = propose(pl.DataFrame({"y": [0, 1] * 30_000, "user": [*values[1:], values[1]]}), "y").spec
    assert spec.categorical == (CategoricalColumn(name="user", encoding="hash"),)
    assert spec.vocabulary_sizes == {"user": 2**20}


def test_frames_of_every_kind_give_the_same_schema() -> None:
    columns = {"click": [0, 1] * 20, "price": [n / 4 for n in range(40)], "city": ["a", "b", "c", "d"] * 10}
    expected = FeatureSpec(
        labels=("click",),
        dense=(DenseColumn(name="price", transform="standardize", missing=4.75),),
        categorical=(CategoricalColumn(name="city", encoding="vocabulary", id_policy="oov"),),
    )
    frame = pl.DataFrame(columns)
    pandas = pd.DataFrame(columns, index=[f"row {n}" for n in range(40)])
    for given_rows in (
        frame,
        frame.to_arrow(),
        pandas,
        columns,
        pandas.convert_dtypes(),
        pandas.astype({"city": "category"}),
    ):
        found = tfdlrm.FeatureSpec.infer(given_rows, "click")
        missing = found.dense[0].missing
        assert missing in (4.75, 5.0)  # of an even number of values, either in the middle
        assert found.to_dict() == {**expected.to_dict(), "dense": [{**expected.dense[0].to_dict(), "missing": missing}]}
    assert to_polars(pd.DataFrame({0: [1], 1: [2]})).columns == ["0", "1"]
    with pytest.raises(TypeError, match="rows are a list, and a frame of polars or pandas"):
        FeatureSpec.infer([1, 2], "click")
    with pytest.raises(ValueError, match="frame: no column 'clicks', did you mean 'click'"):
        FeatureSpec.infer(frame, "clicks")


CELLS = st.sampled_from(
    ["", "?", "NA", "0", "1", "-3", "2.5", "1e400", "007", "a", " a", "a|b", "b;c", "1 2", "1,5", "é", "2024-01-02",
     "1.1.2024", "nan", "inf", "12345678901234567890", "-", "x" * 60, "#", "'", "yes", "\\N", "- a", "{", "null"]
)  # fmt: skip


@settings(max_examples=60)
@given(st.data())
def test_what_is_proposed_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever the cells: the YAML is the schema, and the readers refuse no row but those said to be bad."""
    width, height = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 12))
    names = data.draw(
        st.lists(st.text("ab #:{-é'\"?", min_size=1, max_size=6), min_size=width, max_size=width, unique=True)
    )
    names = [name for name in names if name.strip() == name and name not in ("click", "dense")]
    columns = {name: data.draw(st.lists(CELLS, min_size=height, max_size=height)) for name in names}
    columns["click"] = ["0", "1", *data.draw(st.lists(st.sampled_from("01"), min_size=height - 2, max_size=height - 2))]
    path = tmp_path_factory.mktemp("drawn") / "rows.csv"
    pl.DataFrame(columns).write_csv(path, quote_style="always")
    try:
        found = propose_for_file(path, "click")
    except ValueError as error:
        assert "no column to learn from beside the label" in str(error)  # noqa: PT017 - most draws have one
        return
    assert FeatureSpec.from_yaml(found.to_yaml()) == found.spec
    assert found.to_yaml() == propose_for_file(path, "click").to_yaml()
    config = DataConfig(format="csv", path=str(path), split="none", schema=found.spec)
    dense = [columns[column.name] for column in found.spec.dense]
    bad = {row for cells in dense for row, cell in enumerate(cells) if cell in ("inf", "1e400")}
    assert found.has_bad_rows == bool(bad)
    if len(bad) < height:
        books = open_dataset(config, bad_rows="quarantine" if bad else "error").books
        assert (books.used, books.set_aside) == (height - len(bad), len(bad))


def test_dates_in_two_forms_are_said() -> None:
    days = [f"2024-01-{day:02}" if day % 2 else f"{day:02}.01.2024" for day in range(1, 29)]
    said = written_otherwise(pl.Series(days))
    assert said == "dates in two forms, '2024-01-01' and '02.01.2024': write all as 2024-01-31 to use them"
    assert written_otherwise(pl.Series([*days, "Bergen"])) is None
