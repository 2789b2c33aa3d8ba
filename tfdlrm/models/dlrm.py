"""The Deep Learning Recommendation Model (Naumov et al. 2019, arXiv 1906.00091, figure 1).

      probability = sigmoid(logit)                 at the edge: predict_probability, serving
             ^
             |  [B, tasks]                         logit
       +-----------+
       |  top MLP  |                               one a task
       +-----------+
             ^  [B, D + P]
   +-------------------+
   |    interaction    |                           x beside all pairwise dot products
   +-------------------+
     ^ [B, D]       ^ [B, F, D]
+------------+  +------------------------+
| bottom MLP |  |  embedding collection  |        one pooled vector a feature
+------------+  +------------------------+
     ^              ^
  "dense"       "<feature>"                        [B, n_dense] float32; ids [B], [B, H] or ragged

Without dense columns there is no bottom MLP: the interaction is that of the pooled vectors alone, [B, P]. Without
features it is that of x alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdlrm.checks import quoted
from tfdlrm.config import DLRMConfig
from tfdlrm.embeddings.ids import stop_if
from tfdlrm.embeddings.optimizers import RowOptimizer
from tfdlrm.layers import MLP, ConcatInteraction, DotInteraction, EmbeddingCollection
from tfdlrm.layers.embedding_collection import deserialize_row_optimizer
from tfdlrm.layers.mixed_dimension import with_mixed_dimensions
from tfdlrm.layers.tracking import scope_name, track_lists
from tfdlrm.losses import clamp_logits
from tfdlrm.models.base import Model
from tfdlrm.models.logits import loss_on_logits, metrics_on_logits


@keras.saving.register_keras_serializable(package="tfdlrm")
class DLRM(Model):
    """DLRM, from a config. Output: logits `[B, number of tasks]`.

    Input: a dict with `"dense"` `[B, n_dense]` float32, where the config has dense columns (`bottom_mlp` is None where
    it has none), and each feature's ids under its name. The model is a layer as well: call it on symbolic inputs to use
    it as a block of a functional model.

    Args:
        config: sizes, tables and features.
        row_optimizer: of tables that have none of their own; default `RowwiseAdagrad()`, which follows the learning
            rate of the optimizer given to `compile`.
        output_bias: first logit of every row, one for all tasks or one a task: ln(r / (1 - r)) of the base rate r, so
            that training begins at what a constant can reach. None for the reference's random first logits.

    Raises:
        ValueError: the config has neither features nor dense columns, or is of another architecture; another number of
            biases than tasks.

    Example:
        >>> config = DLRMConfig(num_dense=13, embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 1),
        ...                     tables=tables, features=features)
        >>> model = DLRM(config)
        >>> model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    """

    architecture = "dlrm"

    def __init__(
        self,
        config: DLRMConfig,
        row_optimizer: RowOptimizer | None = None,
        *,
        output_bias: float | Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = _checked(config, self.architecture)
        self.output_bias = _one_a_task(output_bias, config.tasks)
        seed = config.seed
        self.bottom_mlp = (
            self._mlp(config.bottom_mlp, seed=seed + 1, name="bottom_mlp", final_activation="relu")
            if config.num_dense
            else None
        )
        features = embedding_features(config)
        self.embeddings = EmbeddingCollection(
            features,
            None if features else (),
            optimizer=row_optimizer,
            seed=seed,
            name="embeddings",
            dtype=self.dtype_policy,
        )
        self.interaction = self._interaction()
        self.top_mlps = [
            self._mlp(
                config.top_mlp,
                seed=seed + 2 + k,
                name=f"top_mlp_{scope_name(task)}",
                final_activation=None,
                output_bias=bias,
            )
            for k, (task, bias) in enumerate(zip(config.tasks, self.output_bias, strict=True))
        ]
        track_lists(self, top_mlps=self.top_mlps)

    def _prepare_compile(self, arguments: dict[str, Any]) -> None:
        """Losses and metrics of probabilities as those of logits; `layers.stock_model` calls it before `compile`."""
        if "loss" in arguments:
            arguments["loss"] = loss_on_logits(arguments["loss"])
        for name in ("metrics", "weighted_metrics"):
            if arguments.get(name) is not None:
                arguments[name] = metrics_on_logits(arguments[name])

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> tf.Tensor:
        check_inputs(self.name, inputs, self.config.num_dense)
        x, e = None, None
        if self.bottom_mlp is not None:
            dense = check_dense(self.name, inputs, self.config.num_dense)
            x = self.bottom_mlp(dense, training=training)  # [B, D]
        if self.config.features:
            e = self.embeddings(self._categorical(inputs), training=training)  # [B, F, D]
        return self.logits_of(x, e, training=training)

    def logits_of(self, x: tf.Tensor | None, e: tf.Tensor | None, training: bool | None = None) -> tf.Tensor:
        """Logits `[B, tasks]` of what the interaction joins.

        Args:
            x: of the bottom MLP, `[B, D]`; None where there is none.
            e: pooled vectors, `[B, F, D]`; None where there are no features.
            training: see `keras.Model.call`.
        """
        z = self._interact(x, e)  # [B, P] or [B, D + P]
        logits = [mlp(z, training=training) for mlp in self.top_mlps]  # [B, 1] each
        return logits[0] if len(logits) == 1 else keras.ops.concatenate(logits, axis=1)

    def _interact(self, x: tf.Tensor | None, e: tf.Tensor | None) -> tf.Tensor:
        """The interaction of the dense vector, where there is one, and the pooled vectors, where there are some."""
        if x is None:
            return self.interaction([e[:, 0], e[:, 1:]])  # type: ignore[index]
        return self.interaction([x, x[:, tf.newaxis][:, :0] if e is None else e])

    def probability(self, logits: Any) -> tf.Tensor:
        """Logits `[B, tasks]` -> probabilities, float32: the sigmoid, clamped as the loss given to `compile` clamps."""
        logits = tf.cast(logits, tf.float32)
        clamp = getattr(self.loss, "probability_clamp", 0.0) if self.compiled else 0.0
        return tf.sigmoid(clamp_logits(logits, clamp) if clamp else logits)

    def predict_probability(self, x: Any, **kwargs: Any) -> np.ndarray:
        """`probability(predict(x))`, `[B, tasks]` float32. Takes `predict`'s arguments."""
        return self.probability(self.predict(x, **kwargs)).numpy()

    def _interaction(self) -> keras.layers.Layer:
        config = self.config
        if config.interaction == "cat":
            return ConcatInteraction(name="interaction", dtype=self.dtype_policy)
        return DotInteraction(
            interact_itself=config.interact_itself,
            padding=config.interaction_padding,
            # one vector has no pairs, and stands for itself
            concat_dense=config.num_dense > 0 or config.num_features == 1,
            name="interaction",
            dtype=self.dtype_policy,
        )

    def _mlp(
        self,
        units: tuple[int, ...],
        *,
        seed: int,
        name: str,
        final_activation: str | None,
        output_bias: float | None = None,
    ) -> MLP:
        config = self.config
        return MLP(
            units,
            final_activation=final_activation,
            dropout=config.dropout,
            normalization=config.normalization,
            output_bias=output_bias,
            seed=seed,
            name=name,
            dtype=self.dtype_policy,
        )

    def _categorical(self, inputs: dict[str, Any]) -> dict[str, Any]:
        missing = [f.name for f in self.config.features if f.name not in inputs]
        if missing:
            raise ValueError(
                f"model {quoted(self.name)}: inputs lack the features {missing}; they have {sorted(inputs)}. "
                "Pass every feature of the config."
            )
        return {feature.name: inputs[feature.name] for feature in self.config.features}

    def build(self, input_shape: Any = None) -> None:
        if getattr(self, "built", False):
            return
        config = self.config
        if self.bottom_mlp is not None:
            self.bottom_mlp.build((None, config.num_dense))
        self.embeddings.build()
        width = (None, config.embedding_dim)
        stacked = (None, config.num_features - (self.bottom_mlp is None), config.embedding_dim)
        self.interaction.build([width, stacked])
        joined = self.interaction.compute_output_shape([width, stacked])
        for mlp in self.top_mlps:
            mlp.build(joined)
        self.built = True

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        del training
        first = inputs["dense"] if self.config.num_dense else inputs[self.config.features[0].name]
        return keras.KerasTensor((first.shape[0], len(self.config.tasks)), dtype=self.compute_dtype)

    def input_signature(self) -> dict[str, tf.TypeSpec]:
        """What a batch looks like: `[B, n_dense]` float32; ids int64, `[B]`, `[B, H]`, or ragged `[B, None]`."""
        signature: dict[str, tf.TypeSpec] = {}
        if self.config.num_dense:
            signature["dense"] = tf.TensorSpec([None, self.config.num_dense], tf.float32)
        for feature in self.config.features:
            if feature.hotness is None:
                signature[feature.name] = tf.RaggedTensorSpec([None, None], tf.int64)
            else:
                shape = [None] if feature.hotness == 1 else [None, feature.hotness]
                signature[feature.name] = tf.TensorSpec(shape, tf.int64)
        return signature

    def export(self, filepath: Any, format: str = "tf_saved_model", verbose: Any = None, **options: Any) -> None:
        """As `keras.Model.export`, by `input_signature` unless another is given: Keras's own takes ids for floats.

        `tfdlrm export` writes what serving needs beside this: probabilities, raw rows, ranking, quantized rows.
        """
        if format != "tf_saved_model" or options.get("input_signature") is not None:
            return super().export(filepath, format=format, verbose=verbose, **options)
        # not through the signature of Keras's own function, which has no ragged inputs
        serve = tf.function(self.__call__, input_signature=[self.input_signature()], autograph=False)
        serve.get_concrete_function()
        archive = keras.export.ExportArchive()
        archive.track(self)
        archive.add_endpoint("serve", serve)
        archive.write_out(filepath, verbose=verbose is None or bool(verbose))
        return None

    def get_config(self) -> dict[str, Any]:
        optimizer = self.embeddings.get_config()["optimizer"]
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "config": self.config.to_dict(),
            "row_optimizer": optimizer,
            "output_bias": None if set(self.output_bias) == {None} else list(self.output_bias),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> DLRM:
        del custom_objects
        config = dict(config)
        config["config"] = DLRMConfig.from_dict(config["config"])
        config["row_optimizer"] = deserialize_row_optimizer(config.get("row_optimizer"))
        config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(**config)


def _one_a_task(bias: Any, tasks: tuple[str, ...]) -> list[float | None]:
    given = [bias] * len(tasks) if bias is None or isinstance(bias, (int, float)) else list(bias)
    if len(given) != len(tasks):
        raise ValueError(
            f"DLRM: output_bias={quoted(bias)} has {len(given)} values, tasks are {list(tasks)}. Give one a task."
        )
    for value in given:
        if value is not None and not math.isfinite(value):
            raise ValueError(
                f"DLRM: output_bias={quoted(bias)} is not finite. Give ln(r / (1 - r)) of a rate r in (0, 1)."
            )
    return given


def check_inputs(model: str, inputs: Any, num_dense: int) -> None:
    """Stops where the inputs are no mapping (TypeError).

    Args:
        model: its name.
        inputs: of the model.
        num_dense: columns.
    """
    if not isinstance(inputs, Mapping):
        dense = f"'dense' [B, {num_dense}], and " if num_dense else ""
        raise TypeError(
            f"model {quoted(model)}: inputs of type {type(inputs).__name__}. Give a dict: {dense}the ids of each "
            "feature by its name."
        )


def check_dense(model: str, inputs: Mapping[str, Any], num_dense: int) -> tf.Tensor:
    """Passes `inputs["dense"]`, `[B, n_dense]`, on, or stops with the column, row and value of one that is not finite.

    Args:
        model: its name.
        inputs: of the model.
        num_dense: columns.

    Raises:
        ValueError: another shape.
        tf.errors.InvalidArgumentError: at run time.
    """
    if "dense" not in inputs:
        raise ValueError(
            f"model {quoted(model)}: the inputs have no 'dense', [B, {num_dense}] numbers. There are: "
            f"{', '.join(map(str, inputs))}."
        )
    dense = tf.convert_to_tensor(inputs["dense"])
    if not dense.shape.is_compatible_with([None, num_dense]):
        raise ValueError(
            f"model {quoted(model)}: 'dense' has shape {dense.shape.as_list()}, and the config's "
            f"num_dense={num_dense} wants "
            f"[B, {num_dense}]. Give a column a number, or change num_dense."
        )
    if not dense.dtype.is_floating:
        return dense
    # x - x is 0 or NaN; one pass, where is_finite and reduce_all take two
    wrong = tf.math.is_nan(tf.reduce_sum(dense - dense))

    def words() -> list[Any]:
        where = tf.where(~tf.math.is_finite(dense))[0]
        return [
            f"model '{model}': dense column ", tf.strings.as_string(where[1]), " of row ",
            tf.strings.as_string(where[0]), " of the batch is ", tf.strings.as_string(tf.gather_nd(dense, where)),
            ". Fill missing values in; the readers and exports take the schema's value for them.",
        ]  # fmt: skip

    return stop_if(wrong, words, dense)


def embedding_features(config: DLRMConfig) -> tuple:
    """The config's features, each with its table after quotient-remainder, mixed dimension and pooling weights."""
    return with_mixed_dimensions(config.resolved_features(), config.mixed_dimension, config.embedding_dim)


def _checked(config: DLRMConfig, architecture: str) -> DLRMConfig:
    if config.architecture != architecture:
        raise ValueError(
            f"DLRMConfig: architecture={quoted(config.architecture)} is not {quoted(architecture)}. "
            "Use DLRM for 'dlrm' and DLRMDCNv2 for 'dcnv2', or build_model(config) for either."
        )
    if not config.features and not config.num_dense:
        raise ValueError(
            "DLRMConfig: no features and no dense columns. Give tables and features, or take them from a dataset: "
            "config.with_schema(spec)."
        )
    return config
