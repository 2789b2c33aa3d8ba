"""A whole DLRM in NumPy float64: forward, backward, one training step. Nothing here imports tfdlrm.

Configs, weights and batches have the form of the stored runs (`tests/golden/README.md`): `table_k`,
`table_k_quotient`, `table_k_remainder`, `table_k_projection`, `pooling_k`, `bottom_i_kernel`, `bottom_i_bias`,
`top_...`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import reference as oracle
from tests import reference_losses as losses
from tests.reference import Array, Bags

# the stored runs' name -> the row optimizer, and what it is for parameters that are not tables
OPTIMIZERS = {
    "sgd": ("sgd", "sgd"),
    "adagrad": ("adagrad", "adagrad"),
    "rwsadagrad": ("rowwise_adagrad", "adagrad"),
}


class ReferenceDLRM:
    """The reference model at given weights.

    Args:
        config: `rows`, `interaction`, `itself`, `loss`, `loss_weights`, `threshold`, `qr`, `pooling`, `optimizer`.
        weights: float arrays by name; they are copied, as float64.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Array]):
        self.config = dict(config)
        self.weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.slots: dict[str, dict[str, Array]] = {}
        self.num_steps = 0

    def _mlp(self, kind: str) -> list[tuple[Array, Array]]:
        count = sum(name.startswith(f"{kind}_") and name.endswith("_kernel") for name in self.weights)
        return [(self.weights[f"{kind}_{i}_kernel"], self.weights[f"{kind}_{i}_bias"]) for i in range(count)]

    def pooled(self, k: int, bags: Bags) -> Array:
        """Feature k's vectors `[B, D]`."""
        weights = self.weights
        if f"table_{k}_quotient" in weights:
            split = self.config["qr"]
            parts = oracle.split_bags(bags, split["collisions"])
            names = (f"table_{k}_quotient", f"table_{k}_remainder")
            return oracle.combine(split["op"], *[oracle.pool(weights[n], b) for n, b in zip(names, parts, strict=True)])
        vectors = oracle.pool(weights[f"table_{k}"], bags, row_weights=weights.get(f"pooling_{k}"))
        projection = weights.get(f"table_{k}_projection")
        return vectors if projection is None else vectors @ projection

    def pooled_backward(self, upstream: Array, k: int, bags: Bags) -> dict[str, Array]:
        """Gradients of feature k's weights, by name."""
        weights = self.weights
        if f"table_{k}_quotient" in weights:
            split = self.config["qr"]
            names = (f"table_{k}_quotient", f"table_{k}_remainder")
            parts = oracle.split_bags(bags, split["collisions"])
            vectors = [oracle.pool(weights[n], b) for n, b in zip(names, parts, strict=True)]
            both = oracle.combine_backward(upstream, split["op"], *vectors)
            return {
                name: oracle.pool_backward(gradient, weights[name], part)[0]
                for name, gradient, part in zip(names, both, parts, strict=True)
            }
        found = {}
        table, row_weights = weights[f"table_{k}"], weights.get(f"pooling_{k}")
        projection = weights.get(f"table_{k}_projection")
        if projection is not None:
            found[f"table_{k}_projection"] = oracle.pool(table, bags, row_weights=row_weights).T @ upstream
            upstream = upstream @ projection.T
        found[f"table_{k}"], weight_gradient = oracle.pool_backward(upstream, table, bags, row_weights=row_weights)
        if self.config["pooling"] == "learned":
            found[f"pooling_{k}"] = weight_gradient
        return found

    def forward(self, dense: Array, bags: list[Bags]) -> dict[str, Any]:
        """Everything on the way to the logits `[B, 1]`."""
        bottom = oracle.mlp(dense, self._mlp("bottom"), "relu")
        e = np.stack([self.pooled(k, feature) for k, feature in enumerate(bags)], axis=1)
        x, others = self._first_vector(bottom, e)
        if self.config["interaction"] == "dot":
            joined = oracle.dot_interaction(x, others, self.config["itself"])[:, self._cut(x) :]
        else:
            joined = oracle.concat_interaction(x, others)
        top = oracle.mlp(joined, self._mlp("top"), None)
        return {"bottom": bottom, "e": e, "top": top, "logits": top[-1]}

    def _first_vector(self, bottom: list[Array], e: Array) -> tuple[Array, Array]:
        """What takes the place of the dense vector, and the others: without dense columns feature 0 does."""
        return (bottom[-1], e) if self._mlp("bottom") else (e[:, 0], e[:, 1:])

    def _cut(self, x: Array) -> int:
        """Columns of the dot interaction's output that are left out: a feature has pairs, and does not stand there."""
        return 0 if self._mlp("bottom") else x.shape[1]

    def probability(self, dense: Array, bags: list[Bags]) -> Array:
        """`[B, 1]`, limited to [t, 1 - t] where 0 < t < 1."""
        clamped, _ = losses.clamped_logit(self.forward(dense, bags)["logits"], self.config.get("threshold", 0.0))
        return losses.sigmoid(clamped)

    def loss(self, logits: Array, label: Array) -> tuple[float, Array]:
        """The mean loss and its gradient with respect to the logits."""
        clamp = self.config.get("threshold", 0.0)
        if self.config["loss"] == "wbce":
            low, high = map(float, self.config["loss_weights"].split("-"))
            values, gradient = losses.wbce(logits, label, (low, high), clamp)
        else:
            values, gradient = {"bce": losses.bce, "mse": losses.mse}[self.config["loss"]](logits, label, clamp)
        return float(values.mean()), gradient / values.size

    def gradients(self, dense: Array, bags: list[Bags], label: Array) -> tuple[float, dict[str, Array]]:
        """The loss, and the gradient of every weight that is trained, by name."""
        run = self.forward(dense, bags)
        loss, upstream = self.loss(run["logits"], label)
        upstream, top = oracle.mlp_backward(upstream, run["top"], self._mlp("top"), None)
        x, e = self._first_vector(run["bottom"], run["e"])
        if self.config["interaction"] == "dot":
            upstream = np.concatenate([np.zeros((len(upstream), self._cut(x))), upstream], axis=1)
            x_gradient, e_gradient = oracle.dot_interaction_backward(upstream, x, e, self.config["itself"])
        else:
            x_gradient, e_gradient = oracle.concat_interaction_backward(upstream, x, e)
        if self._mlp("bottom"):
            _, bottom = oracle.mlp_backward(x_gradient, run["bottom"], self._mlp("bottom"), "relu")
        else:
            bottom, e_gradient = [], np.concatenate([x_gradient[:, None], e_gradient], axis=1)
        found: dict[str, Array] = {}
        for kind, layers in (("bottom", bottom), ("top", top)):
            for i, (kernel, bias) in enumerate(layers):
                found |= {f"{kind}_{i}_kernel": kernel, f"{kind}_{i}_bias": bias}
        for k, feature in enumerate(bags):
            found |= self.pooled_backward(e_gradient[:, k], k, feature)
        return loss, found

    def train_step(self, dense: Array, bags: list[Bags], label: Array, learning_rate: float) -> float:
        """Updates every weight once; returns the loss before."""
        loss, gradients = self.gradients(dense, bags, label)
        for name, gradient in gradients.items():
            is_table = name.startswith("table_") and not name.endswith("_projection")
            optimizer = OPTIMIZERS[self.config["optimizer"]][0 if is_table else 1]
            before, shape = _as_rows(self.weights[name]), self.weights[name].shape
            slots = self.slots.setdefault(name, oracle.new_slots(optimizer, before))
            # untouched rows have zero gradients, which leave them as they are under these optimizers
            after, self.slots[name] = oracle.step_of_rows(
                optimizer, before, slots, _as_rows(gradient), learning_rate, self.num_steps
            )
            self.weights[name] = after.reshape(shape)
        self.num_steps += 1
        return loss


def _as_rows(array: Array) -> Array:
    return array if array.ndim == 2 else array[:, None]
