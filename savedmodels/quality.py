"""What rounding and pruning cost: exact metrics of a model with its rows as they are, and as an export holds them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from savedmodels.export import ExportOptions
from savedmodels.serving_rows import ServingPlacement, StoredArray, plan_serving
from tfdlrm.data.dataset import Dataset
from tfdlrm.models.dlrm import DLRM
from tfdlrm.training.evaluation import evaluate_dataset
from tfdlrm.training.prediction import SCORING_BATCH_SIZE

COMPARED = ("auc", "log_loss", "calibration")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Metrics of the same rows.

    Args:
        live: of the model.
        exported: of the model with the rows that its export holds.
    """

    live: dict[str, float]
    exported: dict[str, float]

    def change(self, metric: str) -> float:
        """exported - live."""
        return self.exported[metric] - self.live[metric]


def compare(model: DLRM, dataset: Dataset, options: ExportOptions) -> Quality:
    """Scores a labelled dataset twice. Holds the rounded rows in memory beside the live ones.

    Args:
        model: built.
        dataset: rows with labels.
        options: of the export.

    Example:
        >>> compare(model, splits.test, ExportOptions(quantize="int8")).change("auc")
        -1.2e-06
    """
    tables = model.embeddings.tables
    plan = plan_serving(tables.plan, options.quantize, options.part_bytes)
    placement = ServingPlacement(plan, options.quantize, options.kept, options.part_bytes)
    variables = placement.variables_by_name()
    for array in placement.arrays(tables):
        variables[array.name].assign(_whole(array))
    live = evaluate_dataset(model, dataset, batch_size=SCORING_BATCH_SIZE)
    with tables.served_from(placement):
        exported = evaluate_dataset(model, dataset, batch_size=SCORING_BATCH_SIZE)
    return Quality(live=live, exported=exported)


def _whole(array: StoredArray) -> tf.Tensor:
    rows = np.empty([array.rows, array.width], array.dtype.as_numpy_dtype)
    step = max(1, 2**26 // max(1, array.width * array.dtype.size))
    for start in range(0, array.rows, step):
        stop = min(start + step, array.rows)
        rows[start:stop] = array.read(start, stop)
    return tf.constant(rows)
