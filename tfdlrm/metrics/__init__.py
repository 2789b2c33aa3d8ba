"""Metrics of binary labels and scores.

Per step, in a model's graph (Keras metrics): `BinnedAUC`, `PRAUC`, `LogLoss`, `NormalizedEntropy`,
`Calibration`, `Accuracy`. Exact: `ExactAUC` and `ExactPRAUC` (Keras metrics counted on the host), or without
Keras `ExactAUCAccumulator`, `GroupedAUC`, all of them together in `EvaluationAccumulator` and
`evaluate_arrays`.
"""

from tfdlrm.metrics.accuracy import Accuracy
from tfdlrm.metrics.binary_metric import BinaryMetric
from tfdlrm.metrics.binned_auc import PRAUC, BinnedAUC
from tfdlrm.metrics.calibration import Calibration
from tfdlrm.metrics.evaluation import EvaluationAccumulator, evaluate_arrays
from tfdlrm.metrics.exact_auc import ExactAUC, ExactPRAUC
from tfdlrm.metrics.exact_auc_accumulator import ExactAUCAccumulator
from tfdlrm.metrics.grouped_auc import GroupedAUC, GroupedAUCResult
from tfdlrm.metrics.log_loss import LogLoss, NormalizedEntropy
from tfdlrm.metrics.score_counts import ScoreCounts

__all__ = [
    "PRAUC",
    "Accuracy",
    "BinaryMetric",
    "BinnedAUC",
    "Calibration",
    "EvaluationAccumulator",
    "ExactAUC",
    "ExactAUCAccumulator",
    "ExactPRAUC",
    "GroupedAUC",
    "GroupedAUCResult",
    "LogLoss",
    "NormalizedEntropy",
    "ScoreCounts",
    "evaluate_arrays",
]
