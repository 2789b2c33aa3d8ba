"""The page and the pictures: whole, self-contained, with every number's table and every plot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data import sample_rows as sample
from tests.pages import Page, assert_drawn, read_page, read_png
from tfdlrm.data.inspect import DataReport, inspect_data
from tfdlrm.data.inspect.plots import dense_png, ids_png, overview_png, to_html
from tfdlrm.data.inspect.tables import joined_groups, report_tables
from tfdlrm.pages.tables import percent, shortened
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec


def _page(report: DataReport) -> Page:
    return read_page(to_html(report))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DataReport:
    path = sample.write_csv(tmp_path_factory.mktemp("page") / "rows.csv", sample.sample_rows(300))
    return inspect_data(path, schema=sample.SPEC)


def test_the_page_holds_tables_and_plots(report: DataReport) -> None:
    page = _page(report)
    assert len(page.images) == 3
    for image in page.pictures():
        assert_drawn(image)
    for name in (*sample.SPEC.labels, *(column.name for column in sample.SPEC.dense), *sample.SPEC.feature_names):
        assert name in page.text
    for words in ("Findings", "Dense columns", "Categorical columns", "Drift from train", "300 rows read"):
        assert words in page.text


def test_names_and_values_are_escaped(tmp_path: Path) -> None:
    name = '<b>$x_1$ & "q" 漢字'
    spec = FeatureSpec(
        labels=("y",),
        dense=(DenseColumn(name=name),),
        categorical=(CategoricalColumn(name="c", encoding="vocabulary"),),
    )
    rows = [{"y": k % 2, name: k, "c": "<script>" if k % 3 else "a\nb"} for k in range(30)]
    page = _page(inspect_data(sample.write_csv(tmp_path / "rows.csv", rows), schema=spec))
    assert name in page.text
    assert "<script>" in page.text


def test_a_report_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    spec = FeatureSpec(labels=("y",), dense=(DenseColumn(name="x"),), categorical=(CategoricalColumn(name="c"),))
    path = tmp_path / "rows.csv"
    path.write_text("y,x,c\n2,1,1\n")
    report = inspect_data(path, schema=spec)
    assert (dense_png(report), ids_png(report)) == (None, None)
    assert_drawn(read_png(overview_png(report)))
    assert len(_page(report).images) == 1


def test_tables_are_rectangular(report: DataReport) -> None:
    tables = report_tables(report, all_drift=True)
    assert len(tables) >= 5
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_days_are_joined_for_the_terminal(report: DataReport) -> None:
    groups = report.labels[0].by_section
    joined = joined_groups(groups, 3)
    assert [group.name for group in joined] == ["1 of 7 to 3 of 7", "4 of 7 to 6 of 7", "7 of 7"]
    assert sum(group.rows for group in joined) == 300
    positives = sum(group.rows * (group.rate or 0) for group in joined)
    assert positives / 300 == pytest.approx(report.labels[0].rate)
    assert joined_groups(groups, None) == list(groups)


def test_percent_and_shortened() -> None:
    assert [percent(share) for share in (0.0, 0.00004, 0.5, 1.0, None)] == ["0.00%", "<0.01%", "50.00%", "100.00%", "-"]
    assert shortened("a\nb") == "a b"
    assert shortened("x" * 30, 10) == "xxxxxxx..."
