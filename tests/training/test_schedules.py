"""The learning-rate policy against the reference's stored rates and against the reference's own procedure."""

from __future__ import annotations

import doctest
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden_files import DEFAULT, GOLDEN, golden_runs
from tfdlrm.config import LearningRateConfig
from tfdlrm.training import schedules
from tfdlrm.training.schedules import WarmupPolynomialDecay


def stateful_rates(base: float, warmup: int, start: int, decay: int, steps: int) -> list[float]:
    """The policy as a procedure that remembers the last rate, which is how the reference runs it."""
    rates, last = [], base
    for step in range(1, steps + 1):
        if step < warmup:
            last = base * (1.0 - (warmup - step) / warmup)
        elif start <= step < start + decay:
            last = max(1e-7, base * ((decay - (step - start)) / decay) ** 2)
        elif decay == 0:
            last = base
        rates.append(last)
    return rates


POLICIES = st.builds(
    lambda base, warmup, wait, decay: (base, warmup, warmup + wait, decay),
    st.sampled_from([0.1, 0.5, 1.0, 24.0, 1e-6]) | st.floats(1e-6, 100),
    st.integers(0, 40),
    st.integers(0, 20),
    st.integers(0, 40),
)


@given(policy=POLICIES)
def test_float64_rates_are_the_references_bit_for_bit(policy):
    schedule = WarmupPolynomialDecay(*policy)
    steps = policy[1] + policy[2] + policy[3] + 3
    assert [schedule.learning_rate_at(s) for s in range(1, steps + 1)] == stateful_rates(*policy, steps)


@settings(max_examples=25)
@given(policy=POLICIES, compiled=st.booleans())
def test_graph_gives_the_float32_nearest_to_the_float64_rate(policy, compiled):
    """Also after the graph optimizer, which turns divisions by constants into multiplications."""
    schedule = WarmupPolynomialDecay(*policy)
    steps = np.arange(policy[1] + policy[2] + policy[3] + 3)
    rates = tf.function(schedule)(tf.constant(steps)) if compiled else schedule(tf.constant(steps))
    assert rates.dtype == tf.float32
    expected = [np.float32(schedule.learning_rate_at(int(step) + 1)) for step in steps]
    np.testing.assert_array_equal(rates.numpy(), expected)


def test_golden_rates():
    num_scheduled = 0
    for path in golden_runs():
        with np.load(path, allow_pickle=False) as stored:
            config = json.loads(str(stored["config"]))
            if not config["schedule"]:
                continue
            num_scheduled += 1
            schedule = WarmupPolynomialDecay(config["learning_rate"], *config["schedule"])
            for step in range(config["steps"]):
                expected = stored[f"step_{step}/learning_rate"]
                assert schedule.learning_rate_at(step + 1) == expected, (path.name, step)
                assert schedule(step).numpy() == np.float32(expected), (path.name, step)
    assert num_scheduled or GOLDEN != DEFAULT


def test_plateau_is_the_last_rate_of_the_warmup():
    schedule = WarmupPolynomialDecay(1.0, warmup_steps=10, decay_start_step=20, num_decay_steps=5)
    assert [schedule.learning_rate_at(s) for s in (9, 10, 15, 19)] == [0.9] * 4
    assert schedule.learning_rate_at(20) == 1.0
    assert schedule.learning_rate_at(1000) == schedule.learning_rate_at(24) == (1 / 5) ** 2


def test_decay_has_a_floor():
    schedule = WarmupPolynomialDecay(1e-5, decay_start_step=1, num_decay_steps=100)
    assert schedule.learning_rate_at(100) == 1e-7
    assert schedule.learning_rate_at(10**9) == 1e-7


@pytest.mark.parametrize("base", [0.0, 1e-9])
def test_no_decay_raises_a_rate(base):
    schedule = WarmupPolynomialDecay(base, decay_start_step=1, num_decay_steps=10)
    assert {schedule.learning_rate_at(step) for step in range(1, 20)} == {base}
    assert {float(schedule(step)) for step in range(20)} == {float(np.float32(base))}


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_a_plateau_without_a_rate_before_it_has_the_base_rate(warmup_steps):
    schedule = WarmupPolynomialDecay(0.3, warmup_steps, decay_start_step=5, num_decay_steps=2)
    assert [schedule.learning_rate_at(s) for s in (1, 4)] == [0.3, 0.3]
    assert float(schedule(0)) == np.float32(0.3)


def test_counts_updates_where_gradients_are_accumulated():
    schedule = WarmupPolynomialDecay(0.5, 4, 6, 5, gradient_accumulation_steps=3)
    rates = [float(schedule(step)) for step in range(12)]
    assert rates == [np.float32(schedule.learning_rate_at(s)) for s in (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4)]


def test_drives_a_keras_optimizer():
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(WarmupPolynomialDecay(0.5, 4, 6, 5))
    rates = []
    for _ in range(7):
        before = weight.numpy()
        optimizer.apply([tf.constant([-1.0])], [weight])
        rates.append(float((weight.numpy() - before)[0]))
    np.testing.assert_allclose(rates, stateful_rates(0.5, 4, 6, 5, 7), rtol=1e-6)


def test_serialization_and_config():
    schedule = WarmupPolynomialDecay(0.5, 4, 6, 5, 2)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()
    policy = LearningRateConfig(warmup_steps=4, decay_start_step=6, num_decay_steps=5)
    assert WarmupPolynomialDecay.from_policy(0.5, policy, 2).get_config() == schedule.get_config()
    assert WarmupPolynomialDecay.from_policy(0.5, policy).gradient_accumulation_steps == 1


def test_refuses_a_decay_before_the_end_of_the_warmup():
    with pytest.raises(ValueError, match=r"decay_start_step=3 .* warmup_steps=4\. Raise decay_start_step to 4"):
        WarmupPolynomialDecay(0.5, 4, 3, 5)
    assert WarmupPolynomialDecay(0.5, 4, 0, 0).learning_rate_at(4) == 0.5  # no decay, so nothing to be early


@pytest.mark.parametrize(
    "field",
    ["base_learning_rate", "warmup_steps", "decay_start_step", "num_decay_steps", "gradient_accumulation_steps"],
)
def test_refuses_negative_numbers(field):
    with pytest.raises(ValueError, match=f"{field}=-1"):
        WarmupPolynomialDecay(**{"base_learning_rate": 0.5, field: -1})


def test_examples():
    assert doctest.testmod(schedules).failed == 0
