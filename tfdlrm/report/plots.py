"""The plots of a model's report, each a picture of its own, so that a page can set them as wide as the screen is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfdlrm.pages.figures import BLUE, GREEN, GREY, ORANGE, bars, to_png
from tfdlrm.pages.matplotlib_extra import Figure
from tfdlrm.report.model_report import ModelReport

_SIZE = (4.4, 3.3)
_MOST_BARS = 12


def report_pngs(report: ModelReport) -> dict[str, bytes]:
    """PNGs by name, in the order of the page; plots that have nothing to show are left out."""
    found = {}
    for name, (_, draw) in _PLOTS.items():
        figure = Figure(figsize=_SIZE, layout="constrained")
        panel = figure.subplots()
        if draw(panel, report):
            panel.grid(alpha=0.3)
            found[name] = to_png(figure)
    return found


def plot_title(name: str) -> str:
    """What a plot shows, in words."""
    return _PLOTS[name][0]


def _reliability(panel: Any, report: ModelReport) -> bool:
    found = report.curves.reliability
    top = 1.05 * float(max(found.predicted.max(), found.high.max()))
    panel.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle="--")
    errors = np.maximum([found.observed - found.low, found.high - found.observed], 0.0)
    panel.errorbar(found.predicted, found.observed, yerr=errors, color=BLUE, marker="o", markersize=3.5, linewidth=1.2)
    panel.set(xlim=(0, top), ylim=(0, top), xlabel="predicted probability", ylabel="observed share of positives")
    panel.set_title(f"Reliability, calibration error {found.error:.4f}", fontsize=10)
    return True


def _loss(panel: Any, report: ModelReport) -> bool:
    # training's loss is of the epoch under way, with dropout: the validation part's is of its end
    drawn = _over_epochs(
        panel, report, {"loss": ("training", GREY), _validation(report, "log_loss"): ("validation", BLUE)}
    )
    panel.set_ylabel("log loss")
    panel.set_title("Learning curve: log loss", fontsize=10)
    return drawn


def _auc(panel: Any, report: ModelReport) -> bool:
    drawn = _over_epochs(panel, report, {_validation(report, "auc"): ("validation", BLUE)})
    panel.set_ylabel("AUC")
    panel.set_title("Learning curve: AUC", fontsize=10)
    return drawn


def _validation(report: ModelReport, name: str) -> str:
    """Of several tasks, metrics are named `<task>_<metric>`."""
    own = f"val_{report.label}_{name}"
    return own if any(own in line for line in report.learning.history) else f"val_{name}"


def _over_epochs(panel: Any, report: ModelReport, columns: dict[str, tuple[str, str]]) -> bool:
    learning, drawn = report.learning, False
    for column, (words, colour) in columns.items():
        points = [(line["epoch"] + 1, line[column]) for line in learning.history if column in line]
        if points:
            panel.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=1.4, label=words)
            drawn = True
    if learning.chosen_epoch is not None:
        panel.axvline(learning.chosen_epoch + 1, color=ORANGE, linewidth=1.0, linestyle="--", label="chosen")
    panel.set_xlabel("epoch")
    panel.xaxis.get_major_locator().set_params(integer=True)
    if drawn:
        panel.legend(fontsize=8, frameon=False)
    return drawn


def _shares(panel: Any, x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> None:
    """A curve of one share by another."""
    panel.plot(x, y, color=BLUE, linewidth=1.5)
    panel.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_name, ylabel=y_name)


def _roc(panel: Any, report: ModelReport) -> bool:
    curves = report.curves
    if not len(curves.true_positive_rate):
        return False
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    _shares(panel, curves.false_positive_rate, curves.true_positive_rate, "false positive rate", "true positive rate")
    panel.set_title(f"ROC, AUC {report.metrics['auc']:.4f}", fontsize=10)
    return True


def _precision_recall(panel: Any, report: ModelReport) -> bool:
    curves = report.curves
    if not len(curves.recall):
        return False
    panel.axhline(report.metrics["base_rate"], color=GREY, linewidth=0.8, linestyle="--")
    _shares(panel, curves.recall, curves.precision, "recall", "precision")
    panel.set_title(f"Precision and recall, average {report.metrics['pr_auc']:.4f}", fontsize=10)
    return True


def _scores(panel: Any, report: ModelReport) -> bool:
    curves = report.curves
    for shares, colour, words in zip(curves.shares, (BLUE, ORANGE), ("label 0", "label 1"), strict=True):
        panel.stairs(shares, curves.edges, color=colour, fill=True, alpha=0.35, label=words)
        panel.stairs(shares, curves.edges, color=colour, linewidth=1.1)
    panel.set(xlabel="predicted probability", ylabel="share of the rows of the label", ylim=(0, None))
    panel.legend(fontsize=8, frameon=False)
    panel.set_title("Scores by label", fontsize=10)
    return True


def _gain(panel: Any, report: ModelReport) -> bool:
    curves = report.curves
    if not len(curves.true_positive_rate):
        return False
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    _shares(panel, curves.share_of_rows, curves.gain, "rows, highest scores first", "positives among them")
    panel.set_title("Gain", fontsize=10)
    return True


def _lift(panel: Any, report: ModelReport) -> bool:
    curves = report.curves
    if not len(curves.true_positive_rate):
        return False
    # of a handful of rows a lift is noise
    shown = curves.share_of_rows >= max(0.005, 20.0 / report.metrics["rows"])
    panel.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--")
    panel.plot(
        curves.share_of_rows[shown], curves.gain[shown] / curves.share_of_rows[shown], color=GREEN, linewidth=1.5
    )
    panel.set(xlim=(0, 1), ylim=(0, None), xlabel="rows, highest scores first", ylabel="times the base rate")
    panel.set_title("Lift", fontsize=10)
    return True


def _importance(panel: Any, report: ModelReport) -> bool:
    shown = report.importance[:_MOST_BARS]
    bars(panel, [each.name for each in shown], [each.loss_increase for each in shown], BLUE)
    ends = np.array([each.interval for each in shown]).T
    panel.hlines(range(len(shown)), *ends, color="black", linewidth=1.0)
    panel.set_xlabel("log loss that permuting the column adds")
    panel.set_title("What the model goes by", fontsize=10)
    return bool(shown)


_PLOTS: dict[str, tuple[str, Callable[[Any, ModelReport], bool]]] = {
    "roc": ("ROC curve", _roc),
    "precision_recall": ("Precision by recall; the dashed line is the base rate", _precision_recall),
    "reliability": ("Observed share of positives by predicted probability, with 95 % intervals", _reliability),
    "scores": ("Distribution of the scores of each label", _scores),
    "lift": ("Lift: how many times the base rate the rows of highest score have", _lift),
    "gain": ("Gain: positives among the rows of highest score", _gain),
    "learning_loss": ("Learning curve: log loss by epoch, with the chosen one", _loss),
    "learning_auc": ("Learning curve: AUC by epoch, with the chosen one", _auc),
    "importance": ("Log loss that permuting a column adds, with 95 % intervals", _importance),
}
