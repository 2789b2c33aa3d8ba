"""A table of text, for the terminal and for pages alike, and how numbers are written in one."""

from __future__ import annotations

from dataclasses import dataclass

NO_VALUE = "-"
_VALUE_WIDTH = 24

# What a metric says, for those whose name does not.
METRIC_MEANINGS = {
    "base_rate": "positives / rows",
    "auc": "area under ROC, exact, ties count half",
    "pr_auc": "average precision",
    "log_loss": "nats",
    "normalized_entropy": "log loss / that of the base rate",
    "calibration": "predicted / observed positives",
    "accuracy": "at probability 0.5",
    "gauc": "AUC within groups, weighted by rows",
    "gauc_groups": "groups with both classes",
    "gauc_skipped_groups": "groups with one class only",
}


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table.

    Args:
        title: above it.
        header: names of the columns.
        rows: one tuple a row, as long as the header.
        text_columns: places of columns that are aligned to the left.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)


def percent(share: float | None) -> str:
    """A share of 0 to 1 with two decimals; what would round to nothing is said to be little.

    Example:
        >>> percent(0.25), percent(1e-6), percent(None)
        ('25.00%', '<0.01%', '-')
    """
    if share is None:
        return NO_VALUE
    return "<0.01%" if 0.0 < share < 0.00005 else f"{share:.2%}"


def shortened(text: str, width: int = _VALUE_WIDTH) -> str:
    """Text on one line, cut to a width."""
    text = " ".join(text.split()) if "\n" in text or "\t" in text else text
    return text if len(text) <= width else text[: width - 3] + "..."
