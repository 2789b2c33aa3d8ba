"""Embedding tables as Keras sees weights.

The engine owns the rows (one variable may hold many tables, in fewer bytes than float32) and trains them. Keras asks
a model's weights for their shapes (`summary`, `count_params`) and their values (`get_weights`, `clone_model`,
`EarlyStopping`), writes values back, and hands the trainable ones to a tape and to the dense optimizer. A
`TableVariable` answers all of that for one table. Nothing in a training step reads its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops import resource_variable_ops

from tfdlrm.checks import quoted
from tfdlrm.embeddings.tables import EmbeddingTables, WeightArray
from tfdlrm.native.custom_gradient import custom_gradient, differentiates_function

_ITERATIONS = "iterations"
_PROJECTION = "projection"


def make_anchor() -> tf.Variable:
    """What stands for a collection's tables in a tape: an empty vector, whose gradient costs nothing.

    Asked for the gradient of a `TableVariable`, a tape looks for the anchor, through which every trained lookup passes.
    """
    with tf.init_scope():
        return resource_variable_ops.ResourceVariable(tf.zeros([0]), trainable=True, name="tables_anchor")


def unrecorded_gradient(owner: str) -> tf.Tensor:
    """The anchor's gradient of a lookup that nobody recorded: one that no table takes (`TableVariable.assign`).

    A tape of one's own may be asked for other gradients alone, so that nothing is wrong until this one is applied.

    Args:
        owner: for the message: the layer.

    Raises:
        ValueError: a function is differentiated that another one calls, where nothing tells this gradient from others.
    """
    marker = tf.zeros([1])
    if not differentiates_function():
        return marker
    if isinstance(getattr(ops.get_default_graph(), "outer_graph", None), FuncGraph):
        refuse_unrecorded(owner)
    # gradients of a function's inputs have their shapes, as far as its graph knows
    return tf.raw_ops.PlaceholderWithDefault(input=marker, shape=None)


def refuse_unrecorded(owner: str) -> NoReturn:
    """What somebody gets who trains tables by gradients of lookups that nobody recorded.

    Raises:
        ValueError: with the lines to write.
    """
    raise ValueError(
        f"{owner}: a GradientTape or train_step of your own does not update embedding tables, whose rows have no dense "
        "gradient. Record the lookups, and give the recorder their gradients:\n"
        "    with tf.GradientTape() as tape, tfdlrm.embeddings.recording.record_lookups(tape) as recorder:\n"
        "        loss = ...  # calls the model\n"
        "    dense, pooled = tape.gradient(loss, [weights, recorder.leaves]); recorder.update(pooled, learning_rate)\n"
        "Or call super().train_step(data); or set trainable = False on the layer, where its tables are to stay."
    )


class Rows:
    """The value of a `TableVariable`: used as a tensor it is one, and is read then.

    A dense optimizer takes the value of every weight in hand, to tell them apart by their `_unique_id`, and reads
    none. A gradient through it is refused: rows that no lookup gave have none.
    """

    def __init__(self, variable: TableVariable):
        self._variable = variable
        self._unique_id = f"{variable._anchor._unique_id}/{variable._array.name}"
        self.shape = variable.shape
        self.dtype = tf.as_dtype(variable._dtype)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self._variable, dtype=dtype, name=name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        return self.numpy().astype(dtype or self.dtype.as_numpy_dtype, copy=False)

    def numpy(self) -> np.ndarray:
        return self._variable.numpy()


for _operator in (*tf.Tensor.OVERLOADABLE_OPERATORS, "__len__"):
    # a default argument, since the loop's variable changes
    setattr(Rows, _operator, lambda self, *args, _name=_operator: getattr(tf.convert_to_tensor(self), _name)(*args))


class TableVariable(keras.Variable):
    """The rows of one stored table, or its pooling weights, as one Keras weight of shape `[V, D]`.

    Dense optimizers keep no state of it and never change it: it is marked as a variable that is set by its gradient
    (Keras's `overwrite_with_gradient`), and that gradient, the anchor's, is empty. The rows have been updated by then,
    by the engine. Reading the value copies the table, as reading the weight of `keras.layers.Embedding` does.

    Args:
        tables: the engine's.
        array: which of their arrays.
        anchor: from `make_anchor`, of the collection that owns the tables.
        name: without slashes.
        owner: the layer, for messages.
    """

    def __init__(self, tables: EmbeddingTables, array: WeightArray, anchor: tf.Variable, name: str, owner: str):
        self._tables = tables
        self._owner = owner
        self._array = array
        self._anchor = anchor
        super().__init__(
            lambda shape, dtype: None,  # the engine has made the rows
            shape=(array.num_rows, array.width),
            dtype="float32" if array.dtype == "int8" else array.dtype,
            trainable=array.trainable,
            autocast=False,
            name=name,
        )
        self._overwrite_with_gradient = True

    @property
    def trains(self) -> bool:
        """Whether the engine updates these rows where the layer is not frozen."""
        return self._array.trainable

    def _initialize_with_initializer(self, initializer: Any) -> None:
        del initializer

    def _deferred_initialize(self) -> None:
        pass

    @property
    def value(self) -> Rows:
        """All rows, `[V, D]`, copied when they are asked for. Not differentiable: see `Rows`."""
        return Rows(self)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        return tf.convert_to_tensor(self._read(), dtype=dtype, name=name)

    def _read(self) -> tf.Tensor:
        self._check_readable()

        @custom_gradient
        def read(anchor: tf.Tensor) -> Any:
            del anchor
            rows = tf.cast(self._tables.array(self._array.name).read(0, self._array.num_rows), self._dtype)
            return rows, lambda gradient: self._refuse_gradient()

        return read(tf.convert_to_tensor(self._anchor))

    def numpy(self) -> np.ndarray:
        """A copy of all rows, `[V, D]`."""
        self._check_readable()
        return self._tables.read_array(self._array.name).astype(tf.as_dtype(self._dtype).as_numpy_dtype, copy=False)

    def assign(self, value: Any) -> Any:
        """Overwrites all rows; the state of the row optimizer stays, as a dense optimizer's does.

        Raises:
            ValueError: the shape differs, or the rows are not in this process.
        """
        if self._is_gradient(value):
            return value
        shape = tuple(np.shape(value))
        if shape != tuple(self._shape):
            raise ValueError(
                f"table {quoted(self._array.name)}: got values of shape {list(shape)} for rows of "
                f"shape {list(self._shape)}. "
                "For a larger vocabulary, copy rows by tables.copy_rows_from()."
            )
        self._check_readable()
        self._tables.write_array(self._array.name, value)
        return value

    def assign_add(self, value: Any) -> Any:
        """As `assign`; of a gradient, in a loop of one's own, nothing is added: the rows have theirs already."""
        return value if self._is_gradient(value) else super().assign_add(value)

    def assign_sub(self, value: Any) -> Any:
        """As `assign`; of a gradient, in a loop of one's own, nothing is subtracted: the rows have theirs already."""
        return value if self._is_gradient(value) else super().assign_sub(value)

    def _is_gradient(self, value: Any) -> bool:
        """Whether a value is the anchor's gradient, from a dense optimizer: see the class.

        Raises:
            ValueError: it is, and of a lookup that nobody recorded.
        """
        if isinstance(value, tf.Tensor) and value.shape == [1]:
            refuse_unrecorded(self._owner)
        return isinstance(value, tf.Tensor) and value.shape == self._anchor.shape

    def _check_readable(self) -> None:
        if not self._tables.placement.in_process:
            raise ValueError(
                f"table {quoted(self._array.name)}: its rows are on other machines, and may be "
                "more than one process holds. "
                "Use save_weights and load_weights, which move them piece by piece."
            )

    def _refuse_gradient(self) -> NoReturn:
        raise ValueError(
            f"table {quoted(self._array.name)}: a loss that reads the whole table would update "
            "every row of it in every "
            "step. Take the loss (a penalty, say) from the vectors that the layer returns."
        )

    @property
    def handle(self) -> Any:
        return self._anchor.handle

    @property
    def _shared_name(self) -> str:
        return self._anchor._shared_name

    @property
    def regularizer(self) -> None:
        return None

    @regularizer.setter
    def regularizer(self, value: Any) -> None:
        if value is not None:
            self._refuse_gradient()

    @property
    def constraint(self) -> None:
        return None

    @constraint.setter
    def constraint(self, value: Any) -> None:
        if value is not None:
            raise ValueError(
                f"table {quoted(self._array.name)}: a constraint would read and write every row "
                "in every step. Leave it out."
            )

    def __repr__(self) -> str:
        return f"<TableVariable path={self.path}, shape={tuple(self._shape)}, dtype={self._dtype}>"

    # TensorFlow's checkpoints and SavedModels hold the rows through the engine; here they find nothing more

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {}

    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> None:
        del restored_tensors

    def _copy_trackable_to_cpu(self, object_map: Any) -> None:
        object_map[self] = self

    def _export_to_saved_model_graph(self, object_map: Any, tensor_map: Any, options: Any, **kwargs: Any) -> list[Any]:
        resources = self._anchor._export_to_saved_model_graph(object_map, tensor_map, options, **kwargs)
        object_map[self] = object_map[self._anchor]
        return resources

    def _write_object_proto(self, proto: Any, options: Any) -> None:
        self._anchor._write_object_proto(proto, options)


def table_variables(tables: EmbeddingTables, anchor: tf.Variable, owner: str) -> list[TableVariable]:
    """One weight a table, in the order of the configs, called as the table is; a compressed table has one an array.

    Slashes, which Keras does not allow, are written `|`; a name that is taken gets `_` at its end.
    """
    taken: set[str] = set()
    variables = []
    for array in tables.weight_arrays():
        name = array.name.removesuffix("/rows").replace("/", "|")
        while name in taken:
            name += "_"
        taken.add(name)
        variables.append(TableVariable(tables, array, anchor, name, owner))
    return variables


def dense_weights(weights: Iterable[Any]) -> list[Any]:
    """The weights that are no tables: what a Keras optimizer trains, and what a checkpoint holds beside the tables."""
    return [weight for weight in weights if not isinstance(weight, TableVariable)]


def save_arrays(store: Any, tables: EmbeddingTables | None, projections: Mapping[str, keras.Variable]) -> None:
    """Writes all arrays of `tables`, and the projections of mixed dimensions, into a layer's part of Keras's files.

    Args:
        store: from Keras.
        tables: built, wherever their rows are; an array is in memory once while it is written.
        projections: table name -> kernel.
    """
    for name, projection in projections.items():
        store[_store_key(f"{name}/{_PROJECTION}")] = projection.numpy()
    if tables is not None:
        store[_ITERATIONS] = tables.iterations.numpy()
        for name in tables.array_names():
            store[_store_key(name)] = tables.read_array(name)


def load_arrays(
    store: Any,
    tables: EmbeddingTables | None,
    projections: Mapping[str, keras.Variable],
    *,
    owner: str,
    others: set[str],
) -> None:
    """Reads what `save_arrays` wrote; nothing is overwritten before names and shapes were compared.

    Args:
        store: from Keras.
        tables: built.
        projections: table name -> kernel.
        owner: for messages: the layer.
        others: further keys that the store has.

    Raises:
        ValueError: of other tables; names one, and both shapes.
    """
    held = set(store.keys())  # the store has no `in` of its own
    wanted = {f"{name}/{_PROJECTION}": tuple(kernel.shape) for name, kernel in projections.items()}
    if tables is not None:
        wanted |= {piece.name: (piece.total, piece.width) for piece in tables.slices()}
        others = others | {_ITERATIONS}
    for name, shape in wanted.items():
        table, _, kind = name.rpartition("/")
        if _store_key(name) not in held:
            raise ValueError(
                f"{owner}: table {quoted(table)}: its {kind} {list(shape)} are not in the file, which has "
                f"{sorted(held - others)}. The file is of another model, or of another row optimizer."
            )
        saved = tuple(store[_store_key(name)].shape)
        if saved != shape:
            raise ValueError(
                f"{owner}: table {quoted(table)}: its {kind} are {list(saved)} in the file, and "
                f"{list(shape)} here. Use the "
                "vocabulary_size and embedding_dim that were saved; or load into those, and go on from there by "
                "tables.copy_rows_from()."
            )
    more = held - {_store_key(name) for name in wanted} - others
    if more:
        raise ValueError(
            f"{owner}: {sorted(more)} of the file have no place here. The file is of another model, or of "
            "another row optimizer."
        )
    for name, kernel in projections.items():
        kernel.assign(store[_store_key(f"{name}/{_PROJECTION}")][...])
    if tables is not None:
        tables.iterations.assign(store[_ITERATIONS])
        for name in tables.array_names():
            tables.write_array(name, store[_store_key(name)])


def _store_key(array: str) -> str:
    """Of an array in Keras's files, where a slash begins a group."""
    return array.replace("%", "%25").replace("/", "%2F")
