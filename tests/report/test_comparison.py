"""Two models on the same rows: intervals that cover, the slice where one is worse, rows that moved, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.pages import read_page
from tests.report.test_scores import draw
from tests.report.test_slices import PREPROCESSING, scored
from tests.training.csv_run import csv_config, csv_run, write_rows
from tfdlrm.cli import main
from tfdlrm.metrics import evaluate_arrays
from tfdlrm.metrics.evaluation import log_losses
from tfdlrm.report.comparison import Comparison, compare, paired_intervals
from tfdlrm.report.groups import ValueNames
from tfdlrm.report.model_report import make_report
from tfdlrm.report.page import to_html
from tfdlrm.report.scored_rows import ScoredRows
from tfdlrm.training.run import train


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


def _compared(rows: ScoredRows, other: ScoredRows) -> Comparison:
    return compare(
        rows,
        other,
        ValueNames(PREPROCESSING, rows.sample),
        metrics=evaluate_arrays(rows.labels, rows.logits),
        other_metrics=evaluate_arrays(other.labels, other.logits),
        other_dir="other",
    )


def test_intervals_of_differences_cover_at_their_rate() -> None:
    """One model has noise of its own: the true difference is that of many rows."""

    def pair(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels, logits = draw(rows, seed)
        noisy = logits + np.random.default_rng(seed + 10**6).normal(0, 0.5, rows).astype("f4")
        return labels, logits, noisy

    labels, own, other = pair(1_000_000, 77)
    truth = {
        name: evaluate_arrays(labels, own)[name] - evaluate_arrays(labels, other)[name] for name in ("auc", "log_loss")
    }
    covered, widths = dict.fromkeys(truth, 0), []
    for seed in range(150):
        intervals = paired_intervals(*pair(1000, seed), seed)
        widths.append(intervals["auc"][1] - intervals["auc"][0])
        for name, value in truth.items():
            covered[name] += intervals[name][0] <= value <= intervals[name][1]
    # 142.5, standard deviation 2.7
    for name, count in covered.items():
        assert 142.5 - 4.5 * 2.7 <= count <= 150, (name, count)
    assert np.mean(widths) < 0.04  # unpaired it were 0.08


def test_the_slice_where_one_is_worse_comes_first() -> None:
    right = scored(1)
    wrong = scored(1, lambda columns: 0.7 * (columns.ids[:, 0] == 2))
    found = _compared(wrong, right)
    assert found.verdict.startswith("It is worse than other")
    assert (found.worse[0].column, found.worse[0].value) == ("city", "Oslo")
    inside = right.sample.ids[:, 0] == 2
    gap = log_losses(right.labels, wrong.logits) - log_losses(right.labels, right.logits)
    assert found.worse[0].loss == pytest.approx(gap[inside].mean(), rel=1e-9)
    assert found.worse[0].rows == inside.sum()
    assert not found.better
    by_name = {each.metric: each for each in found.differences}
    assert by_name["log_loss"].difference == pytest.approx(gap.mean(), rel=1e-6)
    assert by_name["log_loss"].interval[0] < gap.mean() < by_name["log_loss"].interval[1]
    assert all(inside[int(each.row)] for each in found.moved)
    turned = _compared(right, wrong)
    assert turned.verdict.startswith("It is better than other")
    assert turned.better[0].value == "Oslo"
    assert not turned.worse


def test_a_model_beside_itself_does_not_differ() -> None:
    rows = scored(3)
    found = _compared(rows, rows)
    assert found.verdict.startswith("It cannot be told from other")
    assert all(each.difference == 0 for each in found.differences)
    assert not found.worse
    assert not found.better


def test_other_rows_are_refused() -> None:
    rows, other = scored(3), scored(4)
    with pytest.raises(ValueError, match="its rows are not those of this model"):
        _compared(rows, other)
    keys = {"row_id": rows.sample.keys["row_id"][::-1]}
    with pytest.raises(ValueError, match="its rows are not those"):
        _compared(rows, replace(rows, sample=replace(rows.sample, keys=keys)))


def test_the_command_compares(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = csv_config(write_rows(tmp_path / "rows.csv", 400))
    other = replace(config, train=replace(config.train, epochs=1, learning_rate=0.001))
    train(other, tmp_path / "other", verbose=0)
    page, file = tmp_path / "page.html", str(write_rows(tmp_path / "new.csv", 3000, seed=5))
    command = ["report", str(model_dir), "--compare", str(tmp_path / "other")]
    assert main([*command, "--data", file, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "It is better than" in said
    assert "Rows that the two disagree on most" in read_page(page.read_text()).text
    assert main(command) == 0  # the test parts of both runs are the same rows
    assert "Beside" in capsys.readouterr().out
    report = make_report(model_dir, data=pl.read_csv(file), compare_with=tmp_path / "other")
    assert report.comparison is not None
    assert report.to_dict()["comparison"]["other_dir"] == str(tmp_path / "other")
    assert report.comparison.differences[0].own == report.metrics["auc"]
    assert "Where this model is better" in to_html(report)
    longer = csv_config(write_rows(tmp_path / "long.csv", 500))
    train(longer, tmp_path / "longer", verbose=0)
    assert main(["report", str(model_dir), "--compare", str(tmp_path / "longer")]) == 2
    assert "Give one file to both by --data" in capsys.readouterr().err
    assert main(["report", str(model_dir), "--compare", str(tmp_path)]) == 2
    assert "no run there" in capsys.readouterr().err
