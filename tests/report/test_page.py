"""Reports of a run: its page, its plots, its JSON, the command, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig

from tests.pages import assert_drawn, read_page, read_png
from tests.training.csv_run import csv_config, csv_run, write_rows
from tests.training.small_run import SPEC, StopAfter, small_config
from tfdlrm.cli import main
from tfdlrm.report.model_report import ModelReport, make_report
from tfdlrm.report.page import to_html
from tfdlrm.report.plots import report_pngs
from tfdlrm.report.projector import _vectors
from tfdlrm.training.build import build_model
from tfdlrm.training.prediction import load_run
from tfdlrm.training.run import train
from tfdlrm.training.run_evaluation import evaluate_run

WITHOUT_AUC = ["reliability", "scores", "learning_loss", "learning_auc", "importance"]
PLOTS = ["roc", "precision_recall", *WITHOUT_AUC[:2], "lift", "gain", *WITHOUT_AUC[2:]]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return csv_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def report(model_dir: Path) -> ModelReport:
    return make_report(model_dir, part="train", minimum_rows=20)


def test_numbers_are_those_of_evaluate(report: ModelReport, model_dir: Path) -> None:
    expected = evaluate_run(model_dir, part="train").metrics
    for name, value in report.metrics.items():
        assert value == pytest.approx(expected[name], rel=1e-6), name
    assert report.constant["log_loss"] == pytest.approx(expected["log_loss"] / expected["normalized_entropy"], rel=1e-6)
    for name, (low, high) in report.intervals.items():
        assert low <= report.metrics[name] <= high, name


def test_the_page_says_it_all(report: ModelReport) -> None:
    page = read_page(to_html(report))
    assert len(page.images) == len(PLOTS)
    for image in page.pictures():
        assert_drawn(image)
    for words in (
        *report.verdict,
        "Metrics",
        "Worst slices",
        "Curves",
        "95 % interval",
        "user = u",
        "train part: 320 rows",
    ):
        assert words in page.text
    assert page.rows > len(report.slices) + 15


def test_plots_and_json(report: ModelReport) -> None:
    assert list(report_pngs(report)) == PLOTS
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["metrics"]["rows"] == 320
    assert len(plain["slices"]) == len(report.slices)
    assert len(plain["curves"]["recall"]) == len(report.curves.recall)


def test_the_command(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--html",
        str(tmp_path / "page.html"),
        "--png",
        str(tmp_path / "plots"),
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert main(["report", str(model_dir), "--minimum-rows", "5", *flags]) == 0
    said = capsys.readouterr().out
    assert "test part: 40 rows (all files: 400 rows read = 400 used + 0 set aside)" in said
    assert "There are" in said
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == set(PLOTS)
    assert_drawn(read_png((tmp_path / "plots" / "roc.png").read_bytes()))
    read_page((tmp_path / "page.html").read_text())
    assert json.loads((tmp_path / "r.json").read_text())["label"] == "click"
    assert main(["report", str(model_dir)]) == 0
    assert "--html report.html" in capsys.readouterr().out


def test_drift_and_columns_without_slices_are_said(model_dir: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(write_rows(tmp_path / "rows.csv", 400, seed=3)).with_columns(pl.col("age") + 40)
    found = make_report(model_dir, data=frame)
    assert any(note.startswith("Other than in the training rows are: age (PSI") for note in found.notes)
    assert found.minimum_rows == 50
    assert "No value of age, user has as many" in read_page(to_html(found)).text
    none = make_report(model_dir, data=frame, minimum_rows=1000)
    assert "No value of any column has 1000 rows" in read_page(to_html(none)).text


def test_an_epoch_with_a_worse_log_loss_is_said(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    lines = (folder / "history.csv").read_text().splitlines()
    place = lines[0].split(",").index("val_log_loss")
    chosen = json.loads((folder / "best.json").read_text())["epoch"]
    cells = lines[1 + chosen].split(",")
    cells[place] = "0.9"
    lines[1 + chosen] = ",".join(cells)
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    notes = make_report(folder).notes
    assert any(f"Epoch {chosen + 1} was chosen by val_auc: its validation log loss is 0.9000" in note for note in notes)


def test_a_sample_is_said_and_metrics_are_of_all(model_dir: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "more.csv", 5000, seed=8)
    whole = make_report(model_dir, data=file)
    some = make_report(model_dir, data=file, sample_rows=1000, batch_size=77)
    assert some.rows.sample.num_rows == 1000
    assert some.metrics["auc"] == pytest.approx(whole.metrics["auc"], abs=1e-6)
    assert "1,000 rows drawn at random from 5,000" in some.notes[0]
    # the sample holds whole rows, each at its place
    np.testing.assert_array_equal(some.rows.sample.keys["row_id"], some.rows.numbers)
    np.testing.assert_array_equal(some.rows.sample.labels[:, 0] > 0, some.rows.sample_labels)
    np.testing.assert_array_equal(some.rows.sample.ids, whole.rows.sample.ids[some.rows.numbers])
    np.testing.assert_array_equal(
        some.rows.sample.ragged["tags"].values, whole.rows.sample.ragged["tags"].take(some.rows.numbers).values
    )


def test_a_frame_is_reported_on_like_a_file(model_dir: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", 300, seed=9)
    of_frame = make_report(model_dir, data=pl.read_csv(file))
    assert of_frame.metrics == make_report(model_dir, data=file).metrics
    assert of_frame.rows_of == "frame"


@pytest.mark.parametrize("kept", ["0", "1", "one row"])
def test_labels_of_one_kind(model_dir: Path, tmp_path: Path, kept: str) -> None:
    frame = pl.read_csv(write_rows(tmp_path / "rows.csv", 300))
    frame = frame[:1] if kept == "one row" else frame.filter(pl.col("click") == int(kept))
    found = make_report(model_dir, data=frame)
    assert "cannot be told" in found.verdict[0]
    page = read_page(to_html(found))
    assert set(report_pngs(found)) == set(WITHOUT_AUC)
    assert "give rows of both kinds" in page.text


def test_a_run_under_way_is_said_to_be(tmp_path: Path) -> None:
    config = csv_config(write_rows(tmp_path / "rows.csv", 400))
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "model", verbose=0, callbacks=[StopAfter(15)])
    found = make_report(tmp_path / "model")
    assert any("1 of 2 epochs" in note for note in found.notes)
    assert found.learning.chosen_epoch == 0


def test_what_is_refused(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        assert main(["report", *words]) == 2
        return capsys.readouterr().err

    assert "no run there" in refused(str(tmp_path))
    assert "is not known" in refused(str(model_dir), "--label", "buy")
    assert "sample_rows" in refused(str(model_dir), "--sample-rows", "0")
    assert "no column of labels" in refused(
        str(model_dir), "--data", str(write_rows(tmp_path / "bare.csv", 20, labelled=False))
    )
    assert "there is no folder" in refused(str(model_dir), "--html", str(tmp_path / "no" / "page.html"))
    (tmp_path / "file").write_text("")
    assert "a file. Give the name of a folder" in refused(str(model_dir), "--png", str(tmp_path / "file"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "other.csv" in refused(str(model_dir), "--data", str(tmp_path / "other.csv"))


def test_a_score_that_is_nan_is_named(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfdlrm.report import model_report

    def broken(*arguments: object) -> object:
        model, *rest = load_run(*arguments)
        kernel = model.top_mlps[0].trainable_variables[-1]
        kernel.assign(np.full(kernel.shape, np.nan, "f4"))
        return (model, *rest)

    monkeypatch.setattr(model_report, "load_run", broken)
    with pytest.raises(ValueError, match=r"row 0 .* the score NaN"):
        make_report(model_dir)


def test_without_matplotlib_the_extra_is_named(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("matplotlib", "tfdlrm.pages"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report", str(model_dir), "--html", str(tmp_path / "page.html")]) == 2
    assert "pip install 'tfdlrm[plot]'" in capsys.readouterr().err


def test_vectors_for_the_projector(model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    assert main(["report", str(model_dir), "--part", "train", "--projector", str(folder)]) == 0
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [entry.tensor_name for entry in config.embeddings] == ["user", "tags"]
    model, _, preprocessing = load_run(model_dir)
    for entry in config.embeddings:
        vectors = np.loadtxt(folder / entry.tensor_path, delimiter="\t")
        lines = [line.split("\t") for line in (folder / entry.metadata_path).read_text().splitlines()]
        assert lines[0] == ["value", "rows", "positives", "predicted"]
        assert len(lines) - 1 == len(vectors)
        rows = [int(line[1]) for line in lines[1:]]
        assert rows == sorted(rows, reverse=True)
        values = preprocessing.vocabularies[entry.tensor_name].values.to_list()
        table = model.embeddings.tables.rows(entry.tensor_name).numpy()
        for line, vector in zip(lines[1:], vectors, strict=True):
            np.testing.assert_allclose(vector, table[values.index(line[0]) + 1], rtol=1e-5)
    assert main(["report", str(model_dir), "--projector", str(folder)]) == 2


def test_vectors_of_bags_of_fixed_length_are_those_of_their_ids() -> None:
    model = build_model(small_config(), SPEC)
    found = _vectors(model, "seen", np.array([3, 0, 39]))
    np.testing.assert_array_equal(found, model.embeddings.tables.rows("item").numpy()[[3, 0, 39]])
