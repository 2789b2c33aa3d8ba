"""Gradients of the native ops, for TensorFlow's tape."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def register(module: Any) -> None:
    """Registers the gradients of the ops of `module`; called once, when the library is loaded."""

    @tf.RegisterGradient("TfdlrmInteract")
    def interact(op: tf.Operation, upstream: tf.Tensor) -> tuple:
        x, e = op.inputs
        return tuple(
            module.tfdlrm_interact_gradient(
                x=x, e=e, upstream=upstream, head=op.get_attr("head"), itself=op.get_attr("itself")
            )
        )

    for name in (
        "TfdlrmActivationGradient",
        "TfdlrmCross",
        "TfdlrmCrossGradient",
        "TfdlrmInteractGradient",
        "TfdlrmRows",
        "TfdlrmLookup",
        "TfdlrmSumRows",
    ):
        tf.no_gradient(name)
