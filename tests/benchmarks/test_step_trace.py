"""Reading a profiler trace: nesting, coverage, and a real traced function and Keras step."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from profile_step import load_builder, profile_model, step_of, summarize
from step_trace import (
    ALLOCATION_EVENT,
    Allocation,
    OpEvent,
    StepTrace,
    _op_events,
    covered_seconds,
    read_trace,
)
from tensorflow.tsl.profiler.protobuf import xplane_pb2

intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=12
)


@given(intervals)
def test_coverage_counts_every_moment_once(spans: list[tuple[int, int]]) -> None:
    moments = {moment for start, end in spans for moment in range(start, end)}
    assert covered_seconds(spans) == len(moments)


def test_nested_ops_are_taken_off_their_parents() -> None:
    spans = [
        ("child", "Mul", 10, 20),
        ("parent", "Call", 0, 100),
        ("grandchild", "Add", 12, 5),
        ("next", "Sub", 100, 50),
    ]
    own = {op.name: round(op.self_seconds * 1e12) for op in _op_events(0, 0, spans)}
    assert own == {"parent": 80, "child": 15, "grandchild": 5, "next": 50}


def op(name: str, op_type: str, self_seconds: float, start: float = 0.0) -> OpEvent:
    return OpEvent(name=name, op_type=op_type, thread=0, start=start, seconds=self_seconds, self_seconds=self_seconds)


def test_a_profile_adds_up_by_type_and_divides_by_steps() -> None:
    trace = StepTrace(
        num_steps=2,
        wall_seconds=2.0,
        ops=(
            op("a", "MatMul", 0.25),
            op("b", "MatMul", 0.5, start=0.25),
            op("c", "Relu", 0.25, start=0.5),
            op("call", "StatefulPartitionedCall", 9.0, start=5.0),
        ),
        allocations=(Allocation(op_name="a", num_bytes=2**20, shape="[1]"),),
    )
    profile = summarize(trace, step_seconds=0.7)
    assert [(row.label, row.self_seconds, row.calls) for row in profile.by_type] == [
        ("MatMul", 0.375, 1.0),
        ("Relu", 0.125, 0.5),
    ]
    assert profile.by_type[0].allocated_bytes == 2**19
    assert [row.label for row in profile.by_node] == ["b  [MatMul]", "a  [MatMul]", "c  [Relu]"]
    text = str(profile)
    assert "step 700.00 ms" in text
    assert "MatMul" in text


@pytest.fixture(scope="module")
def keras_step() -> tuple[keras.Model, list]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(1024, 64)).astype(np.float32), np.ones((1024, 1), np.float32)
    return model, [(tf.constant(x), tf.constant(y))]


def test_a_keras_step_is_profiled_down_to_its_ops(keras_step: tuple) -> None:
    model, batches = keras_step
    profile = profile_model(model, batches, num_steps=2)
    types = {row.label for row in profile.by_type}
    assert any("MatMul" in label for label in types), types
    assert not any("PartitionedCall" in label for label in types)
    assert 0 < profile.busy_seconds <= profile.traced_seconds


def test_the_step_that_is_timed_is_fits_own(keras_step: tuple) -> None:
    model, batches = keras_step
    start = model.get_weights()
    step = step_of(model, batches)
    step(0)
    after_step = model.get_weights()
    model.set_weights(start)
    model.fit(*batches[0], batch_size=1024, epochs=1, shuffle=False, verbose=0)
    for ours, fitted, before in zip(after_step, model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(ours, fitted)
        assert not np.array_equal(ours, before)


def test_a_model_that_runs_several_steps_a_call_is_refused(keras_step: tuple) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=4)
    with pytest.raises(ValueError, match="steps_per_execution=4"):
        step_of(model, [])


def test_large_allocations_carry_their_size_and_node() -> None:
    """Of a trace as TensorFlow writes it: whether its allocators report anything goes by the CPU."""
    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    for number, name in enumerate(("tf_op", "requested_bytes", "shape", "rows_sized/RandomUniform")):
        plane.stat_metadata[number].name = name
    plane.event_metadata[0].name = ALLOCATION_EVENT
    plane.event_metadata[1].name, plane.event_metadata[1].display_name = "rows_sized:RandomUniform", "RandomUniform"
    line = plane.lines.add()
    line.events.add(metadata_id=1, offset_ps=0, duration_ps=500)
    event = line.events.add(metadata_id=0, offset_ps=100)
    event.stats.add(metadata_id=0, ref_value=3)
    event.stats.add(metadata_id=1, int64_value=2_000_000)
    event.stats.add(metadata_id=2, str_value="[1000,500]")
    trace = read_trace(space.SerializeToString(), num_steps=1, wall_seconds=1.0)
    assert trace.allocations == (
        Allocation(op_name="rows_sized/RandomUniform", num_bytes=2_000_000, shape="[1000,500]"),
    )
    assert [op.name for op in trace.ops] == ["rows_sized"]


def test_a_builder_is_loaded_by_file_and_name(tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text("def build():\n    return 'model', []\n")
    assert load_builder(f"{file}:build")() == ("model", [])
    with pytest.raises(ValueError, match="has no function 'make'"):
        load_builder(f"{file}:make")
    with pytest.raises(ValueError, match=r"my_model\.py:build"):
        load_builder("nowhere.py")
