"""NumPy oracles, in float64, of every formula of the models and the engine. Nothing here imports tfdlrm.

Shapes: B bags or samples, N ids of a batch, V rows of a table, D their width. Backward functions take the gradient of
the output, `upstream`, and return the gradients of the inputs in the order of the forward function's arguments. The
whole model is in `reference_dlrm.py`, the losses are in `reference_losses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Bags(NamedTuple):
    """Bag b of a feature is `ids[offsets[b] : offsets[b + 1]]`, each id with a weight (None: 1)."""

    ids: Array
    offsets: Array
    weights: Array | None = None

    @classmethod
    def of(cls, bags: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None) -> Bags:
        """From one list of ids a bag."""
        ids = np.asarray([i for bag in bags for i in bag], np.int64)
        flat = None if weights is None else np.asarray([w for bag in weights for w in bag], np.float64)
        return cls(ids, np.cumsum([0, *map(len, bags)]), flat)

    @property
    def num_bags(self) -> int:
        return len(self.offsets) - 1

    @property
    def bag_of_id(self) -> Array:
        """`[N]`: which bag each id is in."""
        return np.repeat(np.arange(self.num_bags), np.diff(self.offsets))

    def coefficients(self, combiner: str) -> Array:
        """`[N]`: what each id's row is multiplied by; sum: w, mean: w / sum(w), sqrtn: w / sqrt(sum(w^2))."""
        weights = np.ones(len(self.ids)) if self.weights is None else self.weights.astype(np.float64)
        if combiner == "sum":
            return weights
        powers = {"mean": weights, "sqrtn": weights**2}[combiner]
        totals = np.zeros(self.num_bags)
        np.add.at(totals, self.bag_of_id, powers)
        divisor = (totals if combiner == "mean" else np.sqrt(totals))[self.bag_of_id]
        return np.divide(weights, divisor, out=np.zeros_like(weights), where=divisor != 0)


def pool(table: Array, bags: Bags, combiner: str = "sum", row_weights: Array | None = None) -> Array:
    """`[B, D]`: each bag's rows as one vector, rows multiplied by their `row_weights` `[V]` first; empty bag: zeros."""
    rows = table.astype(np.float64)[bags.ids]
    if row_weights is not None:
        rows = rows * row_weights.astype(np.float64)[bags.ids, None]
    pooled = np.zeros((bags.num_bags, table.shape[1]))
    np.add.at(pooled, bags.bag_of_id, rows * bags.coefficients(combiner)[:, None])
    return pooled


def pool_backward(
    upstream: Array, table: Array, bags: Bags, combiner: str = "sum", row_weights: Array | None = None
) -> tuple[Array, Array | None]:
    """Gradients of the table `[V, D]` and of `row_weights` `[V]`, duplicate ids summed."""
    by_id = upstream[bags.bag_of_id] * bags.coefficients(combiner)[:, None]
    scale = 1.0 if row_weights is None else row_weights.astype(np.float64)[bags.ids, None]
    table_gradient = np.zeros(table.shape)
    np.add.at(table_gradient, bags.ids, by_id * scale)
    if row_weights is None:
        return table_gradient, None
    weight_gradient = np.zeros(len(row_weights))
    np.add.at(weight_gradient, bags.ids, (by_id * table.astype(np.float64)[bags.ids]).sum(axis=1))
    return table_gradient, weight_gradient


def split_bags(bags: Bags, collisions: int) -> tuple[Bags, Bags]:
    """Quotient-remainder: the same bags of `id // c` and of `id mod c`."""
    return bags._replace(ids=bags.ids // collisions), bags._replace(ids=bags.ids % collisions)


def combine(operation: str, quotient: Array, remainder: Array) -> Array:
    """Quotient-remainder: the pooled vectors of both tables as one."""
    if operation == "concat":
        return np.concatenate([quotient, remainder], axis=-1)
    return {"mult": np.multiply, "add": np.add}[operation](quotient, remainder)


def combine_backward(upstream: Array, operation: str, quotient: Array, remainder: Array) -> tuple[Array, Array]:
    if operation == "concat":
        return upstream[..., : quotient.shape[-1]], upstream[..., quotient.shape[-1] :]
    return (upstream * remainder, upstream * quotient) if operation == "mult" else (upstream, upstream)


def dense(x: Array, kernel: Array, bias: Array, activation: str | None) -> Array:
    """`activation(x kernel + bias)`."""
    y = x.astype(np.float64) @ kernel.astype(np.float64) + bias
    return {None: y, "relu": np.maximum(y, 0)}[activation]


def mlp(x: Array, layers: Sequence[tuple[Array, Array]], final_activation: str | None) -> list[Array]:
    """The input and every layer's output; ReLU after all but the last layer, which has `final_activation`."""
    outputs = [x.astype(np.float64)]
    for index, (kernel, bias) in enumerate(layers):
        last = index == len(layers) - 1
        outputs.append(dense(outputs[-1], kernel, bias, final_activation if last else "relu"))
    return outputs


def mlp_backward(
    upstream: Array,
    outputs: Sequence[Array],
    layers: Sequence[tuple[Array, Array]],
    final_activation: str | None,
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Gradients of the input and of each (kernel, bias), from what `mlp` returned."""
    gradients: list[tuple[Array, Array]] = []
    for index in reversed(range(len(layers))):
        last = index == len(layers) - 1
        if not last or final_activation == "relu":
            upstream = upstream * (outputs[index + 1] > 0)
        gradients.insert(0, (outputs[index].T @ upstream, upstream.sum(axis=0)))
        upstream = upstream @ layers[index][0].astype(np.float64).T
    return upstream, gradients


def pairs_of(num_vectors: int, itself: bool) -> list[tuple[int, int]]:
    """i > j (with itself i >= j), row-major."""
    return [(i, j) for i in range(num_vectors) for j in range(i + (1 if itself else 0))]


def dot_interaction(x: Array, e: Array, itself: bool = False, padding: int = 1) -> Array:
    """`concat(x, <t_i, t_j>, zeros)` for x `[B, D]`, e `[B, F, D]`, t = [x, e_1 .. e_F]."""
    t = np.concatenate([x[:, None], e], axis=1).astype(np.float64)
    columns = [(t[:, i] * t[:, j]).sum(axis=1) for i, j in pairs_of(t.shape[1], itself)]
    output = np.concatenate([t[:, 0], *[column[:, None] for column in columns]], axis=1)
    return np.pad(output, [(0, 0), (0, -output.shape[1] % padding)])


def dot_interaction_backward(upstream: Array, x: Array, e: Array, itself: bool = False) -> tuple[Array, Array]:
    t = np.concatenate([x[:, None], e], axis=1).astype(np.float64)
    gradient = np.zeros_like(t)
    width = x.shape[1]
    for position, (i, j) in enumerate(pairs_of(t.shape[1], itself)):
        column = upstream[:, width + position, None]
        gradient[:, i] += column * t[:, j]
        gradient[:, j] += column * t[:, i]
    gradient[:, 0] += upstream[:, :width]
    return gradient[:, 0], gradient[:, 1:]


def concat_interaction(x: Array, e: Array) -> Array:
    """`concat(x, e_1 .. e_F)`."""
    return np.concatenate([x, e.reshape(len(e), -1)], axis=1).astype(np.float64)


def concat_interaction_backward(upstream: Array, x: Array, e: Array) -> tuple[Array, Array]:
    return upstream[:, : x.shape[1]], upstream[:, x.shape[1] :].reshape(e.shape)


CrossLayer = tuple[Array, Array, Array]  # V [N, r], W [r, N], bias [N]


def low_rank_cross(x: Array, layers: Sequence[CrossLayer]) -> list[Array]:
    """x_0 and every x_{l+1} = x_0 * ((x_l V) W + b) + x_l."""
    outputs = [x.astype(np.float64)]
    for v, w, bias in layers:
        outputs.append(outputs[0] * (outputs[-1] @ v @ w + bias) + outputs[-1])
    return outputs


def low_rank_cross_backward(
    upstream: Array, outputs: Sequence[Array], layers: Sequence[CrossLayer]
) -> tuple[Array, list[CrossLayer]]:
    """Gradients of x and of each (V, W, bias), from what `low_rank_cross` returned."""
    x0 = outputs[0]
    x0_gradient = np.zeros_like(x0)
    gradients: list[CrossLayer] = []
    for (v, w, bias), xl in zip(reversed(layers), reversed(outputs[:-1]), strict=True):
        x0_gradient += upstream * (xl @ v @ w + bias)
        inner = upstream * x0  # gradient of (x_l V) W + b
        hidden = inner @ w.T
        gradients.insert(0, (xl.T @ hidden, (xl @ v).T @ inner, inner.sum(axis=0)))
        upstream = upstream + hidden @ v.T
    return x0_gradient + upstream, gradients


def root(value: Array, epsilon: float, inside: bool) -> Array:
    """`sqrt(value + eps)` (Keras) or `sqrt(value) + eps` (the reference, FBGEMM)."""
    return np.sqrt(value + epsilon) if inside else np.sqrt(value) + epsilon


SLOTS = {
    "sgd": (),
    "adagrad": ("accumulator",),
    "rowwise_adagrad": ("accumulator",),
    "lazy_adam": ("momentum", "velocity"),
    "ftrl": ("accumulator", "linear"),
}


def new_slots(optimizer: str, rows: Array, initial_accumulator_value: float = 0.0) -> dict[str, Array]:
    """The optimizer's state for rows `[V, D]` before the first step."""
    width = 1 if optimizer == "rowwise_adagrad" else rows.shape[1]
    start = {"accumulator": initial_accumulator_value}
    return {name: np.full((len(rows), width), start.get(name, 0.0)) for name in SLOTS[optimizer]}


def step_of_rows(
    optimizer: str,
    w: Array,
    slots: dict[str, Array],
    g: Array,
    learning_rate: float,
    step: int = 0,
    *,
    epsilon: float = 1e-10,
    inside: bool = False,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    l1: float = 0.0,
    l2: float = 0.0,
    beta: float = 0.0,
    learning_rate_power: float = -0.5,
    weight_decay: float = 0.0,
) -> tuple[Array, dict[str, Array]]:
    """One step on rows `[U, D]` with total gradients g `[U, D]`; `step` counts from 0. FTRL's l2 is its own."""
    decay = learning_rate * weight_decay * w
    if optimizer == "ftrl":
        p = -learning_rate_power
        new = slots["accumulator"] + g**2
        sigma = (new**p - slots["accumulator"] ** p) / learning_rate
        z = slots["linear"] + g - sigma * w
        quadratic = (beta + new**p) / learning_rate + 2 * l2
        updated = np.where(np.abs(z) > l1, (np.sign(z) * l1 - z) / quadratic, 0.0)
        return updated - decay, {"accumulator": new, "linear": z}
    g = g + l2 * w
    if optimizer == "sgd":
        return w - learning_rate * g - decay, {}
    if optimizer == "lazy_adam":
        m = beta_1 * slots["momentum"] + (1 - beta_1) * g
        v = beta_2 * slots["velocity"] + (1 - beta_2) * g**2
        rate = learning_rate * np.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1))
        return w - rate * m / root(v, epsilon, inside) - decay, {"momentum": m, "velocity": v}
    squares = {"adagrad": g**2, "rowwise_adagrad": (g**2).mean(axis=1, keepdims=True)}[optimizer]
    accumulator = slots["accumulator"] + squares
    return w - learning_rate * g / root(accumulator, epsilon, inside) - decay, {"accumulator": accumulator}


def update_table(
    optimizer: str,
    table: Array,
    slots: dict[str, Array],
    ids: Array,
    gradients: Array,
    learning_rate: float,
    step: int = 0,
    *,
    clipnorm: float | None = None,
    **settings: float,
) -> tuple[Array, dict[str, Array]]:
    """The table `[V, D]` and its slots after one step: the gradients `[N, D]` of duplicate ids are summed, then
    clipped together to `clipnorm`, and only the rows named in `ids` change.
    """
    touched, index = np.unique(ids, return_inverse=True)
    total = np.zeros((len(touched), table.shape[1]))
    np.add.at(total, index, gradients)
    if clipnorm is not None:
        total *= clipnorm / max(np.linalg.norm(total), clipnorm)
    before = {name: slot[touched] for name, slot in slots.items()}
    rows, after = step_of_rows(
        optimizer, table[touched].astype(np.float64), before, total, learning_rate, step, **settings
    )
    updated, new = table.astype(np.float64), {name: slot.astype(np.float64) for name, slot in slots.items()}
    updated[touched] = rows
    for name, values in after.items():
        new[name][touched] = values
    return updated, new
