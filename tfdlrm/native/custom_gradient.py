"""Gradients of one's own that are forgotten with the graph they are in.

`tf.custom_gradient` registers a gradient function by a new name for every trace, for the life of the process. The
function owns the graph of the step, and so every table the step reads: a model that was dropped keeps its tables. Here
the function belongs to the graph.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import ops

_TYPE = "TfdlrmFunctionOfTheGraph"
_FUNCTIONS = "_tfdlrm_gradients"
_TENSORFLOWS = "CustomGradient-"
_state = threading.local()


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient` for functions of tensors that use no variables.

    Args:
        function: tensors -> (tensor or nest of tensors, gradient function). The gradient function takes a gradient for
            each tensor of the nest and returns one, or None, for each argument.

    Example:
        >>> @custom_gradient
        ... def doubled(x):
        ...     return 2 * x, lambda upstream: 2 * upstream
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if tf.executing_eagerly():
            return tf.custom_gradient(function)(*args)  # nothing is registered
        inputs = [tf.convert_to_tensor(argument) for argument in args]
        with record.stop_recording():
            result, gradient = function(*inputs)
            outputs = tf.nest.flatten(result)
            graph = ops.get_default_graph()
            # what the graph's own differentiation sees, which knows an op by the type of its gradient
            with graph.gradient_override_map({"IdentityN": _TYPE}):
                passed = tf.identity_n([*outputs, *inputs])
        num = len(outputs)

        def backward(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
            return [None] * num + list(tf.nest.flatten(gradient(*upstream[:num])))

        if not hasattr(graph, _FUNCTIONS):
            setattr(graph, _FUNCTIONS, {})
        getattr(graph, _FUNCTIONS)[passed[0].op.name] = backward
        record.record_operation(function.__name__, passed, [*outputs, *inputs], backward)
        return tf.nest.pack_sequence_as(result, passed[:num])

    return call


@tf.RegisterGradient(_TYPE)
def _of_the_graph(op: tf.Operation, *upstream: tf.Tensor) -> list[tf.Tensor | None]:
    _state.in_function = True
    try:
        return getattr(op.graph, _FUNCTIONS)[op.name](*upstream)
    finally:
        _state.in_function = False


def differentiates_function() -> bool:
    """Within a gradient function: whether a whole function is differentiated, not what a tape recorded within it."""
    return getattr(_state, "in_function", False)


def forget_gradients() -> None:
    """Forgets what `tf.custom_gradient` registered for the graph that is being traced, once it was differentiated.

    Keras's optimizers sum gradients over replicas by one, also where there is a single replica. A graph whose
    gradients were taken within it, as a training step's are, needs them no more.
    """
    if tf.executing_eagerly():
        return
    for graph in _with_branches(ops.get_default_graph()):
        for op in graph.get_operations():
            if op.type == "IdentityN":
                _forget(op)


def _with_branches(graph: tf.Graph) -> Iterator[tf.Graph]:
    """The graph and those of its conditions and loops, which are traced with it and differentiated nowhere else."""
    yield graph
    for op in graph.get_operations():
        if op.type.removeprefix("Stateless") in ("If", "Case", "While"):
            for attribute in op.op_def.attr:
                for name in _functions(op, attribute):
                    yield from _with_branches(graph._get_function(name).graph)


def _functions(op: tf.Operation, attribute: Any) -> list[str]:
    if attribute.type == "func":
        return [op.get_attr(attribute.name).name]
    return [one.name for one in op.get_attr(attribute.name)] if attribute.type == "list(func)" else []


def _forget(op: tf.Operation) -> None:
    try:
        name = op.get_attr("_gradient_op_type").decode()
    except ValueError:
        return  # it has no gradient of its own
    if name.startswith(_TENSORFLOWS):
        ops.gradient_registry._registry.pop(name, None)
