"""Optimizers of the dense layers: SGD, Adagrad with the reference's epsilon, and the choice that `TrainConfig`
makes.

Tables have their own row optimizers (`tfdlrm.embeddings.optimizers`); nothing here touches a table.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import keras
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.checks import quoted
from tfdlrm.training.schedules import WarmupPolynomialDecay, _Policy

EpsilonPlacement = Literal["outside", "inside"]


def _handle(variable: Any, gradient: Any) -> tf.Tensor | None:
    """The handle of a weight that TensorFlow's fused update ops can take with this gradient; None otherwise."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if not isinstance(value, resource_variable_ops.BaseResourceVariable) or not isinstance(gradient, tf.Tensor):
        return None
    return value.handle if value.dtype == gradient.dtype == tf.float32 else None


@keras.saving.register_keras_serializable(package="tfdlrm")
class SGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`; without momentum, a weight is updated by one op where Keras makes two passes.

    Args: as in `keras.optimizers.SGD`.

    Example:
        >>> weight = keras.Variable([1.0])
        >>> SGD(0.5).apply([keras.ops.convert_to_tensor([4.0])], [weight])
        >>> float(weight[0])
        -1.0
    """

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        handle = None if self.momentum else _handle(variable, gradient)
        if handle is None:
            super().update_step(gradient, variable, learning_rate)
            return
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=tf.cast(learning_rate, tf.float32), delta=gradient)


@keras.saving.register_keras_serializable(package="tfdlrm")
class Adagrad(keras.optimizers.Adagrad):
    """Adagrad (Duchi et al., 2011) with epsilon outside the root, as PyTorch and the reference have it.

    `a += g^2`, then

        epsilon_placement="outside":  w -= lr * g / (sqrt(a) + epsilon)
        epsilon_placement="inside":   w -= lr * g / sqrt(a + epsilon)      (Keras's own)

    With `epsilon_placement="inside", initial_accumulator_value=0.1, epsilon=1e-7` it is
    `keras.optimizers.Adagrad`.

    Args:
        learning_rate: number, schedule or callable.
        initial_accumulator_value: a before the first step.
        epsilon: keeps the division finite.
        epsilon_placement: `outside` or `inside` the root.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: as in `keras.optimizers.Optimizer`.

    Raises:
        ValueError: `epsilon_placement` is neither, or a negative epsilon or initial value.

    Example:
        >>> weight = keras.Variable([1.0])
        >>> Adagrad(0.5).apply([keras.ops.convert_to_tensor([4.0])], [weight])
        >>> float(weight[0])  # 1 - 0.5 * 4 / sqrt(16)
        0.5
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        initial_accumulator_value: float = 0.0,
        epsilon: float = 1e-10,
        epsilon_placement: EpsilonPlacement = "outside",
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        if epsilon_placement not in ("outside", "inside"):
            raise ValueError(
                f"Adagrad: epsilon_placement={quoted(epsilon_placement)} is not known. "
                "Give 'outside' (the reference, PyTorch) or 'inside' the root (Keras)."
            )
        for field, value in (("epsilon", epsilon), ("initial_accumulator_value", initial_accumulator_value)):
            if value < 0:
                raise ValueError(f"Adagrad: {field}={quoted(value)} is negative. Give 0 or more.")
        super().__init__(
            learning_rate=learning_rate,
            initial_accumulator_value=initial_accumulator_value,
            epsilon=epsilon,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        self.epsilon_placement = epsilon_placement

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        if self.epsilon_placement == "inside":
            super().update_step(gradient, variable, learning_rate)
            return
        accumulator = self._accumulators[self._get_variable_index(variable)]
        handle, slot = _handle(variable, gradient), _handle(accumulator, gradient)
        if handle is not None and slot is not None:
            tf.raw_ops.ResourceApplyAdagradV2(
                var=handle,
                accum=slot,
                lr=tf.cast(learning_rate, tf.float32),
                epsilon=tf.constant(self.epsilon, tf.float32),
                grad=gradient,
            )
            return
        ops = keras.ops
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(accumulator, ops.square(gradient))
        self.assign_sub(variable, rate * gradient / (ops.sqrt(accumulator) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon_placement": self.epsilon_placement}


class _TrainFields(Protocol):
    """The fields of `tfdlrm.TrainConfig` that decide the dense optimizer."""

    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def schedule(self) -> _Policy | None: ...
    @property
    def global_clipnorm(self) -> float | None: ...
    @property
    def gradient_accumulation_steps(self) -> int | None: ...


def learning_rate_from_config(train_config: _TrainFields) -> float | WarmupPolynomialDecay:
    """The constant rate or the schedule of a `TrainConfig`; called with Keras's count of calls, from 0."""
    if train_config.schedule is None:
        return train_config.learning_rate
    return WarmupPolynomialDecay.from_policy(
        train_config.learning_rate, train_config.schedule, train_config.gradient_accumulation_steps
    )


def dense_optimizer_from_config(train_config: _TrainFields) -> keras.optimizers.Optimizer:
    """The Keras optimizer of the dense layers.

    Args:
        train_config: a `tfdlrm.TrainConfig`; read are `optimizer`, `learning_rate`, `schedule`,
            `global_clipnorm` and `gradient_accumulation_steps`.

    Returns:
        `SGD`, `Adagrad` with the reference's epsilon, or `keras.optimizers.Adam`.

    Raises:
        ValueError: `optimizer` is none of sgd, adagrad, adam.

    Example:
        >>> from tfdlrm.config import TrainConfig
        >>> dense_optimizer_from_config(TrainConfig(optimizer="adagrad")).epsilon_placement
        'outside'
    """
    # Keras takes "accumulate 1 step" for an error
    accumulate = train_config.gradient_accumulation_steps
    options: dict[str, Any] = {
        "learning_rate": learning_rate_from_config(train_config),
        "global_clipnorm": train_config.global_clipnorm,
        "gradient_accumulation_steps": accumulate if accumulate and accumulate > 1 else None,
    }
    if train_config.optimizer == "sgd":
        return SGD(**options)
    if train_config.optimizer == "adagrad":
        return Adagrad(**options)
    if train_config.optimizer == "adam":
        return keras.optimizers.Adam(**options)
    raise ValueError(f"optimizer={quoted(train_config.optimizer)} is not known. Choose one of: sgd, adagrad, adam.")
