"""TensorBoard's event files: scalars, curves of precision and recall, histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import sklearn.metrics
from tensorboard.plugins.pr_curve import plugin_data_pb2
from tensorflow.python.summary.summary_iterator import summary_iterator

from tests.training.small_run import small_config, small_splits
from tests.training.test_callbacks import attached, ended_epoch
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.training.evaluation import NUM_THRESHOLDS, Scorer
from tfdlrm.training.run import train
from tfdlrm.training.run_state import RunState
from tfdlrm.training.tensorboard_log import TensorBoardLog, histogram


def events(folder: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, float(keras.ops.convert_to_numpy(_float(value))))
        for file in sorted(folder.iterdir())
        for event in summary_iterator(str(file))
        for value in event.summary.value
    ]


def _float(value: Any) -> Any:
    from tensorflow import make_ndarray

    return make_ndarray(value.tensor)


def test_tensorboard_events(tmp_path: Path) -> None:
    state = RunState(step=99, batches_per_epoch=10)
    log = attached(TensorBoardLog(tmp_path, state))
    log.on_train_begin()
    log.on_train_batch_end(0, {"loss": 0.75})
    state.step = 100
    log.on_train_batch_end(1, {"loss": 0.25})
    ended_epoch(state, 11)
    log.on_epoch_end(11, {"loss": 0.5, "val_auc": 0.875})
    log.on_train_end()
    assert events(tmp_path) == [
        (100, "train/loss", 0.25),
        (100, "train/learning_rate", 0.5),
        (120, "validation/auc", 0.875),
    ]
    [file] = tmp_path.iterdir()
    starts = [event.step for event in summary_iterator(str(file)) if event.HasField("session_log")]
    assert starts == [100]  # TensorBoard forgets what an earlier session wrote from here on


def test_tensorboard_curves_and_histograms_of_a_run(tmp_path: Path) -> None:
    result = train(small_config(epochs=2), tmp_path, data=small_splits(), verbose=0)
    found: dict[str, list[Any]] = {}
    for file in sorted((tmp_path / "logs").iterdir()):
        for event in summary_iterator(str(file)):
            for value in event.summary.value:
                plugin = value.metadata.plugin_data
                found.setdefault(f"{plugin.plugin_name} {value.tag}", []).append((_float(value), plugin.content))
    curve, content = found["pr_curves validation/click"][-1]
    assert plugin_data_pb2.PrCurvePluginData.FromString(content).num_thresholds == NUM_THRESHOLDS
    assert curve.shape == (6, NUM_THRESHOLDS)
    part = small_splits().validation
    scorer = Scorer(result.model, part.batches(64))
    batches = [(labels.numpy().ravel(), logits.ravel()) for (_, labels), logits in scorer.scored()]
    labels, logits = (np.concatenate(values) for values in zip(*batches, strict=True))
    thresholds = np.linspace(0, 1, NUM_THRESHOLDS)
    # by logits, as the product does: near 0 and 1 a float32 probability is its neighbour's
    with np.errstate(divide="ignore"):
        said = logits[:, np.newaxis].astype(np.float64) >= np.log(thresholds / (1 - thresholds))
    true, false = (said[labels == 1].sum(0), said[labels == 0].sum(0))
    np.testing.assert_array_equal(curve[0], true)
    np.testing.assert_array_equal(curve[1], false)
    np.testing.assert_array_equal(curve[2], (labels == 0).sum() - false)
    np.testing.assert_array_equal(curve[3], (labels == 1).sum() - true)
    for threshold in range(0, NUM_THRESHOLDS, 6):
        expected = [
            score(labels, said[:, threshold], zero_division=0.0)
            for score in (sklearn.metrics.precision_score, sklearn.metrics.recall_score)
        ]
        np.testing.assert_allclose(curve[4:, threshold], expected, rtol=1e-6)
    for label, count in (("negative", (labels == 0).sum()), ("positive", (labels == 1).sum())):
        histogram, _ = found[f"histograms probability/click/{label}"][-1]
        assert histogram[:, 2].sum() == count
    for weight in dense_weights(result.model.trainable_weights):
        histogram, _ = found[f"histograms weights/{weight.path}"][-1]
        values = weight.numpy()
        assert histogram[:, 2].sum() == values.size
        if values.size > 1:
            np.testing.assert_allclose([histogram[0, 0], histogram[-1, 1]], [values.min(), values.max()], rtol=1e-6)
    assert {len(values) for name, values in found.items() if not name.startswith("scalars")} == {2}


def test_a_histogram_leaves_out_what_is_not_finite() -> None:
    assert histogram(np.array([np.nan, 1.0, np.inf, 2.0], np.float32))[:, 2].sum() == 2
    assert histogram(np.full(3, np.nan, np.float32))[:, 2].sum() == 0
    assert histogram(np.ones(3, np.float32))[:, 2].sum() == 3
