"""The reference's learning-rate policy as a Keras schedule.

Steps s are counted from 1, W = warmup_steps, S = decay_start_step, N = num_decay_steps:

    s < W             base * (1 - (W - s) / W)                                linear warmup
    S <= s < S + N    max(1e-7, base * ((N - (s - S)) / N)^2)                 quadratic decay
    otherwise         the last value above where N > 0, base where N = 0      plateau, and after the decay

so that the plateau between W and S is base * (W - 1) / W, not base. Where N > 0 and no step came before the
plateau (W is 0 or 1) there is no last value, which the reference fails on; it is base here. A base below 1e-7 is its
own floor: a rate of 0 stays 0, where the reference would raise it.
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import tensorflow as tf

from tfdlrm.checks import quoted

MINIMUM_DECAYED_RATE = 1e-7  # the reference's floor under the decay


class _Policy(Protocol):
    """The fields of `tfdlrm.LearningRateConfig`."""

    @property
    def warmup_steps(self) -> int: ...
    @property
    def decay_start_step(self) -> int: ...
    @property
    def num_decay_steps(self) -> int: ...


@keras.saving.register_keras_serializable(package="tfdlrm")
class WarmupPolynomialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup, plateau, quadratic decay; see the module's formulas.

    Called with a step counted from 0, as Keras does, it gives the float32 nearest to the float64 rate of the
    reference. `learning_rate_at(s)` gives that float64 rate, bit for bit, for a step counted from 1.

    Args:
        base_learning_rate: the rate that the policy scales.
        warmup_steps: W, 0 for none.
        decay_start_step: S, not before W where there is a decay.
        num_decay_steps: N, 0 for no decay.
        gradient_accumulation_steps: calls that make one update. Keras counts calls; the policy counts
            updates.

    Raises:
        ValueError: a negative count, or a decay that starts before the warmup ends.

    Example:
        >>> schedule = WarmupPolynomialDecay(0.5, warmup_steps=4, decay_start_step=6, num_decay_steps=5)
        >>> [schedule.learning_rate_at(s) for s in (1, 3, 5, 6)]
        [0.125, 0.375, 0.375, 0.5]
        >>> float(schedule(0))
        0.125
    """

    def __init__(
        self,
        base_learning_rate: float,
        warmup_steps: int = 0,
        decay_start_step: int = 0,
        num_decay_steps: int = 0,
        gradient_accumulation_steps: int = 1,
    ) -> None:
        super().__init__()
        self.base_learning_rate = float(base_learning_rate)
        self.warmup_steps = int(warmup_steps)
        self.decay_start_step = int(decay_start_step)
        self.num_decay_steps = int(num_decay_steps)
        self.gradient_accumulation_steps = int(gradient_accumulation_steps)
        for name, minimum in (
            ("base_learning_rate", 0),
            ("warmup_steps", 0),
            ("decay_start_step", 0),
            ("num_decay_steps", 0),
            ("gradient_accumulation_steps", 1),
        ):
            if not getattr(self, name) >= minimum:
                raise ValueError(
                    f"WarmupPolynomialDecay: {name}={quoted(getattr(self, name))} is not valid. Give {minimum} or more."
                )
        if self.num_decay_steps and self.decay_start_step < self.warmup_steps:
            raise ValueError(
                f"WarmupPolynomialDecay: decay_start_step={self.decay_start_step} is before the end "
                f"of the warmup, warmup_steps={self.warmup_steps}. "
                f"Raise decay_start_step to {self.warmup_steps} or more."
            )

    @classmethod
    def from_policy(
        cls, base_learning_rate: float, policy: _Policy, gradient_accumulation_steps: int | None = None
    ) -> WarmupPolynomialDecay:
        """The schedule of a `LearningRateConfig` over a base rate."""
        return cls(
            base_learning_rate,
            policy.warmup_steps,
            policy.decay_start_step,
            policy.num_decay_steps,
            gradient_accumulation_steps or 1,
        )

    @property
    def _floor(self) -> float:
        """No decay raises a rate: one of 0 trains nothing."""
        return min(MINIMUM_DECAYED_RATE, self.base_learning_rate)

    def learning_rate_at(self, step: int) -> float:
        """The rate of update `step`, counted from 1, in float64: the reference's own number.

        Args:
            step: 1 for the first update.
        """
        base, warmup, start, decay = (
            self.base_learning_rate,
            self.warmup_steps,
            self.decay_start_step,
            self.num_decay_steps,
        )
        # Written as the reference writes it: base * s / W differs from this in the last bit.
        if step < warmup:
            return base * (1.0 - (warmup - step) / warmup)
        if start <= step < start + decay:
            return max(self._floor, base * ((decay - (step - start)) / decay) ** 2)
        return self._settled_rate(after_decay=step >= start)

    def _settled_rate(self, *, after_decay: bool) -> float:
        """The value that stays, between warmup and decay or after the decay."""
        last = (self.decay_start_step + self.num_decay_steps if after_decay else self.warmup_steps) - 1
        if self.num_decay_steps == 0 or last < 1:
            return self.base_learning_rate
        return self.learning_rate_at(last)

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate at a step counted from 0, a scalar float32."""
        step = tf.cast(keras.ops.convert_to_tensor(step), tf.int64) // self.gradient_accumulation_steps + 1
        warmup, start, decay = (
            tf.constant(count, tf.int64) for count in (self.warmup_steps, self.decay_start_step, self.num_decay_steps)
        )
        base = tf.constant(self.base_learning_rate, tf.float64)
        one = tf.constant(1, tf.int64)  # a policy without warmup or decay must not divide by 0
        warmup_rate = base * (1.0 - tf.truediv(warmup - step, tf.maximum(warmup, one)))
        decay_rate = base * tf.square(tf.truediv(decay - (step - start), tf.maximum(decay, one)))
        rate = tf.where(
            step < start,
            tf.constant(self._settled_rate(after_decay=False), tf.float64),
            tf.constant(self._settled_rate(after_decay=True), tf.float64),
        )
        rate = tf.where(
            tf.logical_and(step >= start, step < start + decay),
            tf.maximum(decay_rate, self._floor),
            rate,
        )
        return tf.cast(tf.where(step < warmup, warmup_rate, rate), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            "base_learning_rate": self.base_learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_start_step": self.decay_start_step,
            "num_decay_steps": self.num_decay_steps,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }
