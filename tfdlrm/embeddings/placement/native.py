"""All rows in one process, looked up and updated by the native kernels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfdlrm.embeddings.bags import BagGroup
from tfdlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowOptimizer, RowwiseAdagrad
from tfdlrm.embeddings.placement.base import Placement, RowGradients
from tfdlrm.embeddings.placement.local import (
    POOLING,
    ROWS,
    LocalPlacement,
    LocalResidual,
    StackStore,
    resolve_learning_rate,
)
from tfdlrm.embeddings.placement.rows import RowArray
from tfdlrm.embeddings.planner import ShardingPlan
from tfdlrm.native import embedding as kernels
from tfdlrm.native import loader, scope
from tfdlrm.native.embedding import SINGLE_ROWS, BagLayout, LookupGradient

_KNOWN = (SGD, Adagrad, RowwiseAdagrad, LazyAdam, FTRL)

Pending = dict[str, list[LookupGradient]]
"""`<stack>/<rows or pooling_weights>/<layout>` -> the lookups' gradients, nothing summed yet."""


def local_placement(plan: ShardingPlan, seed: int) -> Placement:
    """`NativePlacement` where the kernels can be had, else `LocalPlacement`: the same numbers, slower."""
    return (LocalPlacement if loader.library() is None else NativePlacement)(plan, seed)


class NativePlacement(LocalPlacement):
    """See `base.Placement`. Gradients stay as they come from the tape until the update, which sorts, sums and applies
    in one pass; only clipping and accumulation sum them earlier.
    """

    def __init__(self, plan: ShardingPlan, seed: int):
        super().__init__(plan, seed)
        # layouts are static and gradients are nests of tensors, so gradients carry a layout's number
        self._layouts: list[BagLayout] = [SINGLE_ROWS]

    @property
    def takes_bags(self) -> bool:
        return scope.in_region()

    def lookup(self, group: Any) -> tuple[tf.Tensor, Any]:
        if not isinstance(group, BagGroup):
            return super().lookup(group)
        store = self.stores[group.stack]
        assert store.rows is not None
        pooling = None if store.pooling is None else store.pooling.variable.handle
        width = store.stack.embedding_dim
        return kernels.lookup(store.rows.variable.handle, pooling, group.ids, group.layout, width), group

    def gradients(self, pairs: list[tuple[Any, tf.Tensor]]) -> Pending:
        pending: Pending = {}
        for residual, gradient in pairs:
            for kind, group in self._of_lookup(residual, tf.cast(gradient, tf.float32)).items():
                pending.setdefault(kind, []).append(group)
        return pending

    def _of_lookup(self, residual: Any, gradient: tf.Tensor) -> dict[str, LookupGradient]:
        if isinstance(residual, LocalResidual):
            # looked up by stock ops: rows are summed there already
            return {
                f"{key}/0": _as_pending(summed) for key, summed in super().gradients([(residual, gradient)]).items()
            }
        store = self.stores[residual.stack]
        if not store.stack.trainable:
            return {}
        found = LookupGradient(residual.ids, gradient)
        if store.pooling is None:
            return {f"{residual.stack}/{ROWS}/{self._number(residual.layout)}": found}
        # with s the row's sum without its pooling weight p: the row's gradient is p s, the weight's row . s
        assert store.rows is not None
        rows, sums = self._sum(store, [(residual.layout, found)], store.stack.embedding_dim)
        by_row = store.pooling.gather(rows) * sums
        pending = {f"{residual.stack}/{ROWS}/0": _as_pending(RowGradients(rows, by_row))}
        if store.stack.pooling_weights == "learned":
            by_weight = tf.reduce_sum(store.rows.gather(rows) * sums, axis=1, keepdims=True)
            pending[f"{residual.stack}/{POOLING}/0"] = _as_pending(RowGradients(rows, by_weight))
        return pending

    def _number(self, layout: BagLayout) -> int:
        if layout not in self._layouts:
            self._layouts.append(layout)
        return self._layouts.index(layout)

    def _sum(
        self, store: StackStore, groups: list[tuple[BagLayout, LookupGradient]], width: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return kernels.sum_rows(groups, store.stack.num_rows, width)

    def merge(self, parts: list[Any]) -> Pending:
        merged: Pending = {}
        for part in parts:
            for key, found in part.items():
                if isinstance(found, RowGradients):
                    merged.setdefault(f"{key}/0", []).append(_as_pending(found))
                else:
                    merged.setdefault(key, []).extend(found)
        return merged

    def _by_array(self, gradients: Any) -> dict[str, list[tuple[BagLayout, LookupGradient]]]:
        """`<stack>/<kind>` -> layout and gradient of everything that was looked up or held."""
        found: dict[str, list[tuple[BagLayout, LookupGradient]]] = {}
        for key, group in self.merge([self._with_held(gradients)]).items():
            array, _, number = key.rpartition("/")
            found.setdefault(array, []).extend((self._layouts[int(number)], gradient) for gradient in group)
        return dict(sorted(found.items()))

    def summed(self, gradients: Any) -> dict[str, RowGradients]:
        summed = {}
        for key, groups in self._by_array(gradients).items():
            store, array, _ = self._arrays(key)
            summed[key] = RowGradients(*self._sum(store, groups, array.width))
        return summed

    def _arrays(self, key: str) -> tuple[StackStore, RowArray, dict[str, RowArray]]:
        index, kind = key.split("/")
        store = self.stores[int(index)]
        array, slots = (store.rows, store.slots) if kind == ROWS else (store.pooling, store.pooling_slots)
        assert array is not None
        return store, array, slots

    @staticmethod
    def _rounds_by_row(array: RowArray) -> bool:
        """Whether the kernel, which rounds by an array's own row numbers, rounds as the array would."""
        return array.dtype == "float32" or type(array).rounding_rows is RowArray.rounding_rows

    def apply(
        self, gradients: Any, *, learning_rate: tf.Tensor | None, step: tf.Tensor, scale: tf.Tensor | None
    ) -> None:
        for key, groups in self._by_array(gradients).items():
            store, array, slots = self._arrays(key)
            optimizer = store.stack.optimizer
            factor = tf.constant(1.0) if scale is None else tf.cast(scale, tf.float32)
            if type(optimizer) not in _KNOWN or not self._rounds_by_row(array):
                rows, sums = self._sum(store, groups, array.width)
                self.update_array(store, array, slots, RowGradients(rows, sums * factor), learning_rate, step)
                continue
            if optimizer.clipnorm is not None:
                rows, sums = self._sum(store, groups, array.width)
                clipped = tf.clip_by_norm(sums * factor, optimizer.clipnorm)
                groups, factor = [(SINGLE_ROWS, _as_pending(RowGradients(rows, clipped)))], tf.constant(1.0)
            kernels.update(
                array.variable.handle,
                [slots[slot.name].variable.handle for slot in optimizer.slots()],
                groups,
                optimizer={**op_attributes(optimizer), "seed": array.seed},
                learning_rate=resolve_learning_rate(store.stack, learning_rate, step),
                step=step,
                scale=factor,
            )
        for held in self._held.values():
            held.clear()


def op_attributes(optimizer: RowOptimizer) -> dict[str, Any]:
    """A row optimizer as attributes of the op TfdlrmUpdate."""
    attributes: dict[str, Any] = {"optimizer": optimizer.name, "weight_decay": optimizer.weight_decay}
    attributes["l2"] = optimizer.l2
    if isinstance(optimizer, (Adagrad, RowwiseAdagrad, LazyAdam)):
        attributes["epsilon"] = optimizer.epsilon
        attributes["epsilon_inside_root"] = optimizer.epsilon_placement == "inside"
    if isinstance(optimizer, LazyAdam):
        attributes |= {"beta_1": optimizer.beta_1, "beta_2": optimizer.beta_2}
    if isinstance(optimizer, FTRL):
        attributes |= {"l1": optimizer.l1, "beta": optimizer.beta, "power": -optimizer.learning_rate_power}
    return attributes


def _as_pending(gradients: RowGradients) -> LookupGradient:
    return LookupGradient(kernels.single_rows(gradients.ids), gradients.values)
