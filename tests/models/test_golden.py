"""Every stored run of the reference: forward, loss, gradients, learning rates and weights after all steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.golden_files import golden_runs
from tests.models.golden_runs import GoldenRun, dense_weight, read_weight
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.models import DLRM

RELATIVE = 1e-5
RUNS = golden_runs()

pytestmark = pytest.mark.usefixtures("both_kernels")


def assert_close(actual: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Within 1e-5 of the expected value, or of the array's largest one where a value is near zero."""
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(actual, expected, rtol=RELATIVE, atol=RELATIVE * scale * 0.1, err_msg=name)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_run(path: Path) -> None:
    run = GoldenRun.load(path)
    model = run.model()
    for step, (inputs, labels, expected) in enumerate(run.steps()):
        logits = model(inputs, training=False)
        assert_close(model.probability(logits).numpy(), expected["probability"], f"probability, step {step}")
        loss = model.compute_loss(inputs, tf.constant(labels), logits, None, training=False)
        assert_close(loss.numpy(), expected["loss"], f"loss, step {step}")
        assert float(model.optimizer.learning_rate) == np.float32(expected["learning_rate"]), f"step {step}"
        model.train_on_batch(inputs, labels)
    for name, value in run.section("final").items():
        assert_close(read_weight(model, name), value, name)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_gradients_of_the_first_step(path: Path) -> None:
    run = GoldenRun.load(path)
    model = run.model()
    inputs, labels, _ = next(run.steps())
    gradients = gradients_by_name(model, inputs, labels)
    expected = run.section("gradient")
    assert expected.keys() <= gradients.keys()
    for name, value in expected.items():
        assert_close(gradients[name], value, name)


def gradients_by_name(model: DLRM, inputs: dict, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Dense gradients of every weight, tables included, under their golden names."""
    with tf.GradientTape() as tape, record_lookups(tape) as recorder:
        logits = model(inputs, training=True)
        loss = model.compute_loss(inputs, tf.constant(labels), logits, None, training=True)
    named: dict[str, tf.Variable] = {}
    for kind, mlp in (("bottom", model.bottom_mlp), ("top", model.top_mlps[0])):
        for index in range(len(mlp.units)):
            for part in ("kernel", "bias"):
                named[f"{kind}_{index}_{part}"] = dense_weight(model, kind, index, part).value
    for table, projection in model.embeddings.projections.items():
        named[f"table_{table[1:]}_projection"] = projection.value
    dense, pooled = tape.gradient(loss, [list(named.values()), recorder.leaves])
    found = {name: gradient.numpy() for name, gradient in zip(named, dense, strict=True)}
    ((tables, pairs),) = recorder.by_tables(pooled)
    for key, (ids, values) in tables.placement.summed(tables.gradients(pairs)).items():
        index, kind = key.split("/")
        stack = tables.plan.stacks[int(index)]
        whole = np.zeros((stack.num_rows, values.shape[1]), np.float32)
        whole[ids.numpy()] = values.numpy()
        for table, offset in zip(stack.tables, stack.offsets, strict=True):
            rows = whole[offset : offset + table.vocabulary_size]
            if kind == "rows":
                found["table_" + table.name[1:].replace("/", "_")] = rows
            else:
                found[f"pooling_{table.name[1:]}"] = rows[:, 0]
    return found
