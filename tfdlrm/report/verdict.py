"""The verdict: what a report comes to, in three sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tfdlrm.report.curves import Reliability
from tfdlrm.report.score_bins import Interval

FEW = 100  # rows of the rarer class below which an AUC says little
_TOO_FEW = 10


def verdict_of(
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    reliability: Reliability,
    best: Mapping[str, float] | None,
) -> list[str]:
    """Is it better than a constant? Is it calibrated? Are there enough positives to say so?

    Args:
        metrics, intervals: of the rows.
        reliability: of the rows.
        best: metrics of the best possible scores, where those are known.
    """
    rows, rate = int(metrics["rows"]), metrics["base_rate"]
    positives = round(rate * rows)
    return [
        _against_constant(metrics, intervals, best, min(positives, rows - positives)),
        _calibrated(metrics, intervals, reliability, positives),
        _enough(positives, rows - positives, metrics, intervals),
    ]


def _against_constant(
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    best: Mapping[str, float] | None,
    rarer: int,
) -> str:
    entropy, (low, high) = metrics["normalized_entropy"], intervals["normalized_entropy"]
    if math.isnan(entropy):
        kind = "positive" if metrics["base_rate"] > 0.5 else "negative"
        return f"Whether it is better than a constant cannot be told: every row is {kind}, so that AUC does not exist."
    figures = (
        f"log loss {metrics['log_loss']:.4f} is {entropy:.1%} of that of the base rate "
        f"({_range(low, high, '.1%')}), AUC {metrics['auc']:.4f} ({_range(*intervals['auc'], '.4f')})"
    )
    if rarer < _TOO_FEW or math.isnan(low):
        text = f"Whether it is better than a constant cannot be told from so few rows of one kind: {figures}"
    elif high < 1.0:
        text = f"It is better than a constant: {figures}"
    elif low > 1.0:
        text = f"It is worse than the base rate as every row's score: {figures}"
        if metrics["auc"] > 0.5 and intervals["auc"][0] > 0.5:
            text += "; it puts rows in a better order than chance, but its probabilities are wrong"
    else:
        text = f"It cannot be told from a constant: {figures}"
    if best is not None:
        text += f"; the best possible AUC is {best['auc']:.4f}, log loss {best['log_loss']:.4f}"
    return text + "."


def _calibrated(
    metrics: Mapping[str, float], intervals: Mapping[str, Interval], reliability: Reliability, positives: int
) -> str:
    error = f"expected calibration error {reliability.error:.4f}, by chance up to {reliability.error_by_chance:.4f}"
    predicted = float(reliability.rows @ reliability.predicted)
    if not positives:
        how = (
            "not calibrated on these rows"
            if reliability.error > reliability.error_by_chance
            else "not seen to be wrong"
        )
        return f"It is {how}: no row is positive, and it predicts {predicted:.1f} ({error})."
    ratio, (low, high) = metrics["calibration"], intervals["calibration"]
    if math.isnan(low) or positives < _TOO_FEW:
        counts = f"{positives} positive{'s' if positives > 1 else ''} where it predicts {predicted:.1f}"
        return (
            f"Whether it is calibrated can hardly be told: there {'are' if positives > 1 else 'is'} {counts} ({error})."
        )
    figures = f"it predicts {ratio:.3f} times the positives there are ({_range(low, high, '.3f')}), {error}"
    if low > 1.0 or high < 1.0:
        return f"It is not calibrated, it predicts too {'many' if ratio > 1 else 'few'}: {figures}."
    if reliability.error > reliability.error_by_chance:
        return f"It is calibrated on the whole, and not everywhere (see the reliability curve): {figures}."
    return f"It is calibrated, as far as these rows tell: {figures}."


def _enough(positives: int, negatives: int, metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    rarer, kind = min((positives, "positives"), (negatives, "negatives"))
    counts = f"{_count(positives, 'positive')} and {_count(negatives, 'negative')}"
    if rarer == 0:
        return f"There are {counts}: give rows of both kinds."
    low, high = intervals["auc"]
    if rarer < _TOO_FEW or math.isnan(low):
        return f"There are {counts}: too few {kind} to say anything, whatever the numbers are."
    width = f"the AUC is known to ±{(high - low) / 2:.4f}"
    if rarer < FEW:
        return f"There are {counts}: few {kind}, {width}; differences smaller than that are noise."
    return f"There are {counts}: {width}."


def _count(rows: int, kind: str) -> str:
    return f"{rows:,} {kind}{'' if rows == 1 else 's'}"


def _range(low: float, high: float, form: str) -> str:
    if math.isnan(low):
        return "interval unknown"
    return f"95 %: {low:{form}} to {high:{form}}"
