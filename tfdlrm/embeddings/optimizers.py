"""Row optimizers: how the rows that a batch touched are updated.

Each optimizer is a frozen description plus one pure function, `update_rows`, on gathered rows. It never sees a
whole table, so the same function runs on one machine, on a parameter server beside its shard, or on the owner
of a shard after an all-to-all. Ids are unique and `gradients` are the sums over all of a row's occurrences in
the batch before it is called: none of the updates is linear in g, so this is required, not an optimization.

Shapes: U unique ids, D embedding dim.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from tfdlrm.checks import quoted
from tfdlrm.schema import reject_unknown_keys

if TYPE_CHECKING:
    import tensorflow as tf

LearningRate = float | Callable[[Any], Any]  # of the step, a scalar int64 tensor
EpsilonPlacement = Literal["outside", "inside"]


class Slot(NamedTuple):
    """One state array of an optimizer: `[V, width]`, where width 0 stands for the table's own D."""

    name: str
    width: int
    initial_value: float


class RowUpdate(NamedTuple):
    """What to write back: either the rows themselves or what to subtract from them, and the new slots."""

    rows: tf.Tensor | None
    delta: tf.Tensor | None
    slots: dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class RowOptimizer:
    """Base of the row optimizers.

    Args:
        learning_rate: a number, a schedule (called with the 0-based int64 step, as Keras does), or None to
            follow the learning rate of the model's dense optimizer.
        weight_decay: decoupled weight decay, `w -= learning_rate * weight_decay * w`, on touched rows only.
        l2: L2 penalty, `g += l2 * w`, on touched rows only (FTRL has its own meaning).
        clipnorm: clip each table's total gradient of a step to this L2 norm, or None.
    """

    learning_rate: LearningRate | None = None
    _: dataclasses.KW_ONLY
    weight_decay: float = 0.0
    l2: float = 0.0
    clipnorm: float | None = None

    name: ClassVar[str] = ""
    needs_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                self._refuse(field.name, "a finite number")
        if isinstance(self.learning_rate, int):
            object.__setattr__(self, "learning_rate", float(self.learning_rate))
        if not (self.learning_rate is None or callable(self.learning_rate) or isinstance(self.learning_rate, float)):
            self._refuse("learning_rate", "a number, a schedule, or None to follow the model's optimizer")
        if self.learning_rate is not None and not callable(self.learning_rate) and self.learning_rate < 0:
            self._refuse("learning_rate", "0 or more")
        if self.weight_decay < 0:
            self._refuse("weight_decay", "0 or more")
        if self.l2 < 0:
            self._refuse("l2", "0 or more")
        if self.clipnorm is not None and self.clipnorm <= 0:
            self._refuse("clipnorm", "a number above 0, or None for no clipping")

    def _refuse(self, field: str, wanted: str) -> None:
        raise ValueError(f"{type(self).__name__}: {field}={quoted(getattr(self, field))} is not valid. Give {wanted}.")

    def slots(self) -> tuple[Slot, ...]:
        """State arrays beside the rows."""
        return ()

    def reads_rows(self) -> bool:
        """Whether `update_rows` needs the rows' values, or only the gradient and the slots."""
        return self.needs_rows or self.weight_decay > 0 or self.l2 > 0

    def update_rows(
        self,
        rows: tf.Tensor | None,
        slots: Mapping[str, tf.Tensor],
        gradients: tf.Tensor,
        learning_rate: tf.Tensor,
        step: tf.Tensor,
    ) -> RowUpdate:
        """One step on U unique rows.

        Args:
            rows: `[U, D]` float32; None unless `reads_rows()`.
            slots: slot name -> `[U, width]` float32.
            gradients: `[U, D]` float32, duplicates already summed.
            learning_rate: scalar float32.
            step: scalar int64, counted from 0.
        """
        if self.l2 > 0 and rows is not None:
            gradients = gradients + self.l2 * rows
        delta, new_slots = self._delta(gradients, slots, learning_rate, step)
        if self.weight_decay > 0 and rows is not None:
            delta = delta + learning_rate * self.weight_decay * rows
        return RowUpdate(rows=None, delta=delta, slots=new_slots)

    def _delta(
        self, g: tf.Tensor, slots: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        raise TypeError(f"{type(self).__name__} does not define _delta()")


def _root(value: tf.Tensor, epsilon: float, placement: EpsilonPlacement) -> tf.Tensor:
    import tensorflow as tf

    if placement == "outside":
        return tf.sqrt(value) + epsilon
    return tf.sqrt(value + epsilon)


@dataclasses.dataclass(frozen=True)
class SGD(RowOptimizer):
    """`w -= lr * g`."""

    name: ClassVar[str] = "sgd"

    def _delta(self, g, slots, learning_rate, step):  # type: ignore[no-untyped-def]
        return learning_rate * g, {}


@dataclasses.dataclass(frozen=True)
class _EpsilonOptimizer(RowOptimizer):
    _: dataclasses.KW_ONLY
    epsilon: float = 1e-10
    epsilon_placement: EpsilonPlacement = "outside"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon < 0:
            self._refuse("epsilon", "0 or more")
        if self.epsilon_placement not in ("outside", "inside"):
            self._refuse("epsilon_placement", "'outside' (the reference, FBGEMM) or 'inside' the root (Keras)")


@dataclasses.dataclass(frozen=True)
class Adagrad(_EpsilonOptimizer):
    """`a += g^2; w -= lr * g / (sqrt(a) + eps)` (Duchi et al. 2011), as the reference and PyTorch have it.

    `epsilon_placement="inside"` with `initial_accumulator_value=0.1, epsilon=1e-7` is Keras's Adagrad.
    """

    _: dataclasses.KW_ONLY
    initial_accumulator_value: float = 0.0

    name: ClassVar[str] = "adagrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial_accumulator_value < 0:
            self._refuse("initial_accumulator_value", "0 or more")

    def slots(self) -> tuple[Slot, ...]:
        return (Slot("accumulator", 0, self.initial_accumulator_value),)

    def _delta(self, g, slots, learning_rate, step):  # type: ignore[no-untyped-def]
        accumulator = slots["accumulator"] + g * g
        root = _root(accumulator, self.epsilon, self.epsilon_placement)
        return learning_rate * g / root, {"accumulator": accumulator}


@dataclasses.dataclass(frozen=True)
class RowwiseAdagrad(_EpsilonOptimizer):
    """Adagrad with one accumulator a row: `m += mean_D(g^2); w -= lr * g / (sqrt(m) + eps)`.

    The reference's and FBGEMM's `EXACT_ROWWISE_ADAGRAD`: 4 bytes of state a row instead of 4 D.
    """

    _: dataclasses.KW_ONLY
    initial_accumulator_value: float = 0.0

    name: ClassVar[str] = "rowwise_adagrad"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial_accumulator_value < 0:
            self._refuse("initial_accumulator_value", "0 or more")

    def slots(self) -> tuple[Slot, ...]:
        return (Slot("accumulator", 1, self.initial_accumulator_value),)

    def _delta(self, g, slots, learning_rate, step):  # type: ignore[no-untyped-def]
        import tensorflow as tf

        accumulator = slots["accumulator"] + tf.reduce_mean(g * g, axis=1, keepdims=True)
        factor = learning_rate / _root(accumulator, self.epsilon, self.epsilon_placement)
        return factor * g, {"accumulator": accumulator}


@dataclasses.dataclass(frozen=True)
class LazyAdam(_EpsilonOptimizer):
    """Adam (Kingma & Ba 2015) whose moments move only for touched rows; the bias correction uses the global step.

    `m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)`,
    t = step + 1: `torch.optim.SparseAdam`.
    """

    _: dataclasses.KW_ONLY
    epsilon: float = 1e-8
    beta_1: float = 0.9
    beta_2: float = 0.999

    name: ClassVar[str] = "lazy_adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, field) < 1:
                self._refuse(field, "a number in [0, 1)")

    def slots(self) -> tuple[Slot, ...]:
        return (Slot("momentum", 0, 0.0), Slot("velocity", 0, 0.0))

    def _delta(self, g, slots, learning_rate, step):  # type: ignore[no-untyped-def]
        import tensorflow as tf

        momentum = self.beta_1 * slots["momentum"] + (1 - self.beta_1) * g
        velocity = self.beta_2 * slots["velocity"] + (1 - self.beta_2) * g * g
        # float64: 1 - 0.999^t loses three digits in float32 at the first steps
        t = tf.cast(step + 1, tf.float64)
        correction = tf.sqrt(1 - tf.pow(tf.constant(self.beta_2, tf.float64), t)) / (
            1 - tf.pow(tf.constant(self.beta_1, tf.float64), t)
        )
        factor = learning_rate * tf.cast(correction, tf.float32)
        delta = factor * momentum / _root(velocity, self.epsilon, self.epsilon_placement)
        return delta, {"momentum": momentum, "velocity": velocity}


@dataclasses.dataclass(frozen=True)
class FTRL(RowOptimizer):
    """Follow the regularized leader, per coordinate (McMahan et al. 2013, algorithm 1).

    `n' = n + g^2; sigma = (n'^-p - n^-p)/lr; z += g - sigma w;`
    `w = 0 if |z| <= l1 else (sign(z) l1 - z) / ((beta + n'^-p)/lr + 2 l2)`, p = `learning_rate_power`.

    Args:
        l1, l2: regularization strengths (here l2 is FTRL's own, inside the quadratic term).
        learning_rate_power: p, at most 0.
        initial_accumulator_value: n at the start.
        beta: as in the paper.
    """

    _: dataclasses.KW_ONLY
    l1: float = 0.0
    beta: float = 0.0
    learning_rate_power: float = -0.5
    initial_accumulator_value: float = 0.1

    name: ClassVar[str] = "ftrl"
    needs_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("l1", "beta", "initial_accumulator_value"):
            if getattr(self, field) < 0:
                self._refuse(field, "0 or more")
        if self.learning_rate_power > 0:
            self._refuse("learning_rate_power", "0 or less")
        if self.learning_rate == 0:
            self._refuse("learning_rate", "a number above 0: FTRL divides by it")

    def slots(self) -> tuple[Slot, ...]:
        return (Slot("accumulator", 0, self.initial_accumulator_value), Slot("linear", 0, 0.0))

    def update_rows(self, rows, slots, gradients, learning_rate, step):  # type: ignore[no-untyped-def]
        import tensorflow as tf

        del step
        power = -self.learning_rate_power
        old = slots["accumulator"]
        new = old + gradients * gradients
        # beta enters both powers alike, so it cancels in sigma
        sigma = (tf.pow(new, power) - tf.pow(old, power)) / learning_rate
        linear = slots["linear"] + gradients - sigma * rows
        quadratic = (self.beta + tf.pow(new, power)) / learning_rate + 2 * self.l2
        shrunk = tf.clip_by_value(linear, -self.l1, self.l1) - linear
        updated = tf.where(tf.abs(linear) > self.l1, shrunk / quadratic, tf.zeros_like(linear))
        if self.weight_decay > 0:
            updated = updated - learning_rate * self.weight_decay * rows
        return RowUpdate(rows=updated, delta=None, slots={"accumulator": new, "linear": linear})


_OPTIMIZERS: tuple[type[RowOptimizer], ...] = (SGD, Adagrad, RowwiseAdagrad, LazyAdam, FTRL)


def row_optimizer_to_dict(optimizer: RowOptimizer) -> dict[str, Any]:
    """`{"name": ..., <fields>}`, the form used in YAML.

    Raises:
        ValueError: the learning rate is a callable, which YAML cannot carry.
    """
    if callable(optimizer.learning_rate):
        raise ValueError(
            f"{type(optimizer).__name__}: learning_rate={quoted(optimizer.learning_rate)} is a schedule and cannot be "
            "written to YAML. Use a number, or None to follow the dense optimizer, and TrainConfig.schedule."
        )
    return {"name": optimizer.name, **dataclasses.asdict(optimizer)}


def row_optimizer_from_dict(config: Mapping[str, Any] | str) -> RowOptimizer:
    """Inverse of `row_optimizer_to_dict`; a bare name takes the defaults.

    Raises:
        ValueError: unknown name or unknown field, with the nearest valid one named.
    """
    fields = {"name": config} if isinstance(config, str) else dict(config)
    name = fields.pop("name", None)
    classes = {cls.name: cls for cls in _OPTIMIZERS}
    if name not in classes:
        raise ValueError(f"row optimizer: unknown name {quoted(name)}. Choose one of {sorted(classes)}.")
    reject_unknown_keys(f"row optimizer {quoted(name)}", fields, [f.name for f in dataclasses.fields(classes[name])])
    return classes[name](**fields)
