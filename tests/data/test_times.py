"""Times as text: seconds since 1970 as Python's own reader has them, in splits by a column of time too."""

from __future__ import annotations

import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdlrm.data.prepare import PrepareConfig, prepare
from tfdlrm.data.prepared import open_prepared
from tfdlrm.data.times import seconds_of_text
from tfdlrm.schema import CategoricalColumn, FeatureSpec

SPEC = FeatureSpec(labels=("y",), categorical=(CategoricalColumn(name="c"),), keys=("at",), vocabulary_sizes={"c": 100})


@given(
    st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)),
    st.sampled_from(["T", " "]),
    st.sampled_from(["", "Z", "+00:00", "+05:30", "-03:00", "-0930", "+02"]),
    st.sampled_from(["auto", "minutes", "seconds", "milliseconds"]),
)
def test_seconds_are_pythons(moment: datetime.datetime, between: str, zone: str, precision: str) -> None:
    text = moment.isoformat(between, precision) + zone
    read = datetime.datetime.fromisoformat(text)
    expected = (read if read.tzinfo else read.replace(tzinfo=datetime.UTC)).timestamp()
    (found,) = seconds_of_text(pl.Series([f" {text} "])).to_list()
    assert abs(found - expected) < 1e-5
    assert seconds_of_text(pl.Series([text[:10]])).to_list() == [
        datetime.datetime.fromisoformat(text[:10]).replace(tzinfo=datetime.UTC).timestamp()
    ]


def test_other_text_is_no_time() -> None:
    others = [
        "",
        "x",
        "2024-02-31",
        "2024-01-01 25:00",
        "2024-01-01 23:60",
        "1.2.2024",
        "2024-01-01x",
        "20240101",
        None,
    ]
    assert seconds_of_text(pl.Series(others, dtype=pl.String)).null_count() == len(others)


MOMENTS = [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=7 * k) for k in range(100)]
FILES = {
    "text": lambda: [moment.strftime("%Y-%m-%dT%H:%M:%S") for moment in MOMENTS],
    "text with offsets": lambda: [
        moment.astimezone(datetime.timezone(datetime.timedelta(hours=k % 24 - 12))).isoformat()
        for k, moment in enumerate(MOMENTS)
    ],
    "times": lambda: [moment.replace(tzinfo=None) for moment in MOMENTS],
    "times of a zone": lambda: [moment.astimezone(ZoneInfo("America/New_York")) for moment in MOMENTS],
}


@pytest.mark.parametrize("kind", FILES)
def test_rows_are_split_by_timestamps(kind: str, tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(100)
    times = FILES[kind]()
    column = pl.Series([times[k] for k in order])
    if kind == "times of a zone":
        column = column.dt.convert_time_zone("America/New_York")
    pl.DataFrame({"y": [0, 1] * 50, "c": order, "at": column}).write_parquet(tmp_path / "rows.parquet")
    config = PrepareConfig(
        format="parquet",
        schema=SPEC,
        split="time-column",
        split_column="at",
        train_fraction=0.6,
        validation_fraction=0.2,
    )
    prepare(config, [tmp_path / "rows.parquet"], tmp_path / "out")
    splits = open_prepared(tmp_path / "out", None)
    for part, expected in (
        (splits.train, range(60)),
        (splits.validation, range(60, 80)),
        (splits.test, range(80, 100)),
    ):
        ids = np.concatenate([x["c"] for x, _ in part.batches(100, shuffle=False, drop_remainder=False)])
        assert sorted(ids.tolist()) == list(expected)


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"y": [0, 1], "c": [0, 1], "at": ["2024-01-01", "soon"]}).write_csv(tmp_path / "rows.csv")
    config = PrepareConfig(format="csv", schema=SPEC, split="time-column", split_column="at")
    with pytest.raises(ValueError, match=r"split_column='at': 'soon' is no time, in 1 rows\. Give all"):
        prepare(config, [tmp_path / "rows.csv"], tmp_path / "out")
