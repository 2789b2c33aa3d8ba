"""Training embedding tables inside a plain `keras.Model`, whose training step we do not own.

In `tfdlrm.Model` the training step asks its tape for the gradients of the pooled vectors. A plain `keras.Model`
asks only for those of its trainable weights, of which the tables are some (`layers/table_variable.py`). A tape asked
for a table's gradient looks for the *anchor* of its collection: the pooled vectors pass through a function of it whose
gradient updates the tables and returns an empty one for the anchor.

That is exact for Keras's own `train_step` as it stands. It cannot be right where gradients are changed between
the tape and the update, or where several lookups must be summed first; those are refused here, at `compile`
where `compile` can know, else when the first step is traced.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from tensorflow.python.framework import ops
from tensorflow.python.ops.control_flow_v2_func_graphs import CondBranchFuncGraph, WhileBodyFuncGraph

from tfdlrm.checks import quoted
from tfdlrm.layers.table_variable import TableVariable, dense_weights
from tfdlrm.native.custom_gradient import forget_gradients
from tfdlrm.native.scope import native_kernels

_FIX = "Use tfdlrm.Model in place of keras.Model: Model(inputs, outputs) or class MyModel(tfdlrm.Model)."
# what Keras does to each weight by itself, and how tables have it
_OF_SINGLE_WEIGHTS = {
    "clipnorm": "Give it to the row optimizer: tfdlrm.optimizers.Adagrad(clipnorm=...).",
    "clipvalue": "Rows are clipped by norm, by the row optimizer: tfdlrm.optimizers.Adagrad(clipnorm=...).",
    "weight_decay": "Give it to the row optimizer, tfdlrm.optimizers.Adagrad(weight_decay=...), which decays touched "
    "rows, and call optimizer.exclude_from_weight_decay(layer.trainable_weights).",
}
_training = threading.local()


class StockStep:
    """The training step of a plain model that is being traced: the model, and which tables it has looked up."""

    def __init__(self, model: keras.Model):
        self.model = model
        self._seen: dict[int, str] = {}

    def claim(self, tables: object, layer_name: str, variables: Sequence[TableVariable]) -> None:
        """Notes a lookup that will update `tables`; a second one would update them twice.

        Args:
            tables: looked up.
            layer_name: of the collection.
            variables: the tables' weights.

        Raises:
            ValueError: the tables were looked up before in this step, the optimizer is not supported, or the lookup is
                within a condition or a loop of the graph.
        """
        refuse_unsupported(self.model, self.model.optimizer, variables)
        if isinstance(ops.get_default_graph(), (CondBranchFuncGraph, WhileBodyFuncGraph)):
            raise ValueError(
                f"layer {quoted(layer_name)}: looks up within tf.cond, tf.while_loop or "
                "tf.map_fn, and cannot train tables "
                "there. Look up before, and choose among the vectors there; or set trainable = False on the layer."
            )
        if id(tables) in self._seen:
            raise ValueError(
                f"layers {quoted(self._seen[id(tables)])} and {quoted(layer_name)} look the same "
                "tables up in one training step of "
                f"a plain keras.Model, which would update them twice. {_FIX}"
            )
        self._seen[id(tables)] = layer_name


def current_stock_step() -> StockStep | None:
    """The step being traced in this thread, or None."""
    return getattr(_training, "step", None)


@contextlib.contextmanager
def _stock_step(model: keras.Model) -> Iterator[None]:
    previous = current_stock_step()
    _training.step = StockStep(model)
    try:
        yield
    finally:
        _training.step = previous


def refuse_unsupported(model: keras.Model, optimizer: Any, variables: Sequence[TableVariable] = ()) -> None:
    """Refuses optimizer options that an anchored update cannot honour.

    Args:
        model: plain.
        optimizer: its own.
        variables: weights of its tables, as far as they are known.

    Raises:
        ValueError: names the model, the option, its value and the fix.
    """
    inner = optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"model {quoted(model.name)}: LossScaleOptimizer (mixed_float16 adds it) scales the "
            "loss, and tables of a plain "
            f"keras.Model would be updated with scaled gradients. {_FIX} Or use mixed_bfloat16, which needs no scaling."
        )
    for option in ("loss_scale_factor", "gradient_accumulation_steps", "global_clipnorm"):
        value = getattr(inner, option, None)
        if value:
            raise ValueError(
                f"model {quoted(model.name)}: {type(inner).__name__}({option}={quoted(value)}) "
                "cannot reach the embedding tables "
                f"of a plain keras.Model. {_FIX} Or leave {option} out, or freeze the tables."
            )
    for option, instead in _OF_SINGLE_WEIGHTS.items():
        value = getattr(inner, option, None)
        if option == "weight_decay" and not any(inner._use_weight_decay(variable) for variable in variables):
            continue  # they were excluded, or are not known yet: the step will tell
        if value:
            raise ValueError(
                f"model {quoted(model.name)}: {type(inner).__name__}({option}={quoted(value)}) "
                "does not reach the embedding tables "
                f"of a plain keras.Model. {instead} In a tfdlrm.Model, {option} is of dense weights alone. Or leave it "
                "out."
            )
    refuse_averages(model, optimizer)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def refuse_averages(model: keras.Model, optimizer: Any) -> None:
    """Refuses moving averages of weights where the model trains tables: every step would average every row.

    Raises:
        ValueError: names the model and the fix.
    """
    inner = inner_optimizer(optimizer)
    if getattr(inner, "use_ema", False) and any(isinstance(w, TableVariable) for w in model.trainable_weights):
        raise ValueError(
            f"model {quoted(model.name)}: {type(inner).__name__}(use_ema=True) would average "
            "every row of the embedding "
            "tables in every step. Leave use_ema out (and SwapEMAWeights, which needs it), or freeze the tables first."
        )


def keep_tables_from(optimizer: Any) -> None:
    """Leaves tables out where an optimizer would make an accumulator of gradients for each weight it is built for."""
    inner = inner_optimizer(optimizer)
    if getattr(inner, "gradient_accumulation_steps", None) and "build" not in vars(inner):
        inner.build = functools.partial(_build_dense, inner)


def _build_dense(optimizer: keras.optimizers.Optimizer, variables: list) -> None:
    type(optimizer).build(optimizer, dense_weights(variables))


def install(is_collection: Callable[[keras.layers.Layer], bool]) -> None:
    """Makes `keras.Model.compile` check models that hold collections, and mark their training step.

    Keras tells a layer nothing of the model that compiles it, so this wraps `compile`; models without a
    collection, and those that update tables themselves (`tfdlrm.Model`), pass through unchanged.

    Args:
        is_collection: tells whether a layer is an embedding collection.
    """
    # where Keras defines them: it takes a model class whose `compile` is not this one for customized, and then does not
    # compile it after loading
    trainer = next(cls for cls in keras.Model.__mro__ if "compile" in vars(cls))
    stepper = next(cls for cls in keras.Model.__mro__ if "train_step" in vars(cls))
    compile_model, train_step = trainer.compile, stepper.train_step
    if getattr(compile_model, "_tfdlrm", False):
        return

    @functools.wraps(compile_model)
    def compile_checked(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        prepare = getattr(self, "_prepare_compile", None)
        if prepare is not None:  # as `_check_compiled` below, before
            given = inspect.signature(compile_model).bind(self, *args, **kwargs)
            prepare(given.arguments)
            args, kwargs = given.args[1:], given.kwargs
        result = compile_model(self, *args, **kwargs)
        check = getattr(self, "_check_compiled", None)
        if check is not None:  # a `tfdlrm.Model`, which cannot have a `compile` of its own: see above
            check()
            return result
        # what is unfrozen later is checked in the step
        found = [layer for layer in self._flatten_layers() if is_collection(layer) and layer.trainable]
        if found:
            weights = [weight for layer in found for weight in layer.weights if isinstance(weight, TableVariable)]
            refuse_unsupported(self, self.optimizer, weights)
        return result

    compile_checked._tfdlrm = True  # type: ignore[attr-defined]
    trainer.compile = compile_checked

    @functools.wraps(train_step)
    def train_step_marked(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        with _stock_step(self), native_kernels(not self.jit_compile):
            result = train_step(self, *args, **kwargs)
        forget_gradients()
        return result

    stepper.train_step = train_step_marked
