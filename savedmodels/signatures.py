"""The signatures of an export: named tensors in, probabilities out (docs/decisions/0007-serving.md has the table)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from savedmodels.inputs import InputColumn, Raw, columnar_specs, input_columns, parse_examples
from savedmodels.names import DENSE, EMBED, EXAMPLES, PREDICT, RANK, SERVING_DEFAULT, SIGNATURES, input_of_features
from savedmodels.ranking import Ranker
from savedmodels.serving_rows import StoredArray
from tfdlrm.checks import quoted
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.layers.pair_products import picked_by_slices
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec

Outputs = dict[str, tf.Tensor]
Tensors = Mapping[str, tf.Tensor]


class Encoder(Protocol):
    """From raw columns to the model's inputs, with stock TensorFlow ops."""

    preprocessing: Preprocessing

    def encode(self, raw: Raw) -> dict[str, Any]:
        """The model's inputs for those raw columns that are there."""

    def encode_examples(self, examples: tf.Tensor, columns: Sequence[InputColumn]) -> dict[str, Any]:
        """The model's inputs for serialized `tf.train.Example`s `[B]`."""

    def example_dtypes(self) -> Mapping[str, tf.DType]:
        """Raw column -> dtype of its values in a `tf.train.Example`, where it is not the usual one."""

    def arrays(self) -> Iterable[StoredArray]:
        """Large arrays, which are written after all else."""

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Name -> variable of each such array."""

    def parts(self) -> list[Any]:
        """What else TensorFlow has to save: layers with tables."""


class Signatures:
    """Traces a model's signatures.

    Args:
        model: built, and looking up where the export has its rows.
        spec: the schema; needed where ids have weights.
        encoder: of raw columns, a `RawEncoder` say; None where the inputs are those the model was trained on.
        candidate_inputs: for `rank`: what is the candidates', see `Ranker`.

    Raises:
        ValueError: candidates that are not of the model.
    """

    def __init__(
        self,
        model: DLRM,
        spec: FeatureSpec | None = None,
        encoder: Encoder | None = None,
        candidate_inputs: Sequence[str] = (),
    ):
        self.model = model
        self._spec = spec
        self._encoder = encoder
        dtypes = encoder.example_dtypes() if encoder is not None else {}
        self.columns = input_columns(model.config, spec, raw=encoder is not None, example_dtypes=dtypes)
        self.specs = columnar_specs(model.config, self.columns)
        self._ranker = Ranker(model, candidate_inputs) if candidate_inputs else None
        self._sides = self._inputs_of_sides()

    @property
    def of_user(self) -> frozenset[str]:
        """The user's inputs in `rank`; none where there is no such signature."""
        return self._sides[0]

    def _inputs_of_sides(self) -> tuple[frozenset[str], frozenset[str]]:
        """The inputs of the user, and of the candidates, in `rank`."""
        ranker = self._ranker
        if ranker is None:
            return frozenset(), frozenset()
        source = input_of_features(self._spec) if self._encoder is not None and self._spec is not None else {}
        of_user = frozenset(source.get(name, name) for name in ranker.of_user)
        of_candidates = frozenset(source.get(name, name) for name in ranker.of_candidates)
        for name in sorted(of_user & of_candidates):
            own = sorted(each for each in (*source, DENSE) if source.get(each, each) == name)
            raise ValueError(
                f"features {own} are made of one raw input, {quoted(name)}. Give them to one side: all as candidates, "
                "or none."
            )
        return of_user, of_candidates

    def trace(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Name -> concrete function.

        Args:
            names: of `SIGNATURES`; default all that the model can have.

        Raises:
            ValueError: an unknown name, or `rank` without candidates.
        """
        makers = {SERVING_DEFAULT: self._serving_default, PREDICT: self._predict}
        if self.model.config.features:
            makers[EMBED] = self._embed
        if self._ranker is not None:
            makers[RANK] = self._rank
        chosen = [name for name in SIGNATURES if name in makers] if names is None else list(names)
        for name in chosen:
            if name == RANK and self._ranker is None:
                raise ValueError("signature 'rank' needs to know what is the candidates'. Give --candidates.")
            if name == EMBED and name not in makers:
                raise ValueError("signature 'embed' gives features' vectors, and the model has none. Leave it out.")
            if name not in makers:
                raise ValueError(f"signature {quoted(name)} is unknown. Use some of: {', '.join(SIGNATURES)}.")
        with picked_by_slices():
            return {name: makers[name]() for name in chosen}

    def _serving_default(self) -> Any:
        @tf.function(autograph=False)
        def serve(inputs: Tensors) -> Outputs:
            if self._encoder is None:
                features = parse_examples(inputs[EXAMPLES], self.columns, self.model.config.num_dense)
            else:
                features = self._encoder.encode_examples(inputs[EXAMPLES], self.columns)
            return self._scores(features)

        return serve.get_concrete_function({EXAMPLES: tf.TensorSpec([None], tf.string, name=EXAMPLES)})

    def _predict(self) -> Any:
        @tf.function(autograph=False)
        def predict(inputs: Tensors) -> Outputs:
            return self._scores(self._encoded(self._raw(inputs, self.columns, DENSE in inputs)))

        return predict.get_concrete_function(self.specs)

    def _embed(self) -> Any:
        @tf.function(autograph=False)
        def embed(inputs: Tensors) -> Outputs:
            features = self._encoded(self._raw(inputs, self.columns, DENSE in inputs))
            outputs = {}
            if self.model.bottom_mlp is not None:
                dense = self.model.bottom_mlp(features.pop(DENSE), training=False)
                outputs["dense_vector"] = tf.cast(dense, tf.float32)
            return {"embeddings": tf.cast(self.model.embeddings.pooled(features), tf.float32), **outputs}

        return embed.get_concrete_function(self.specs)

    def _rank(self) -> Any:
        ranker = self._ranker
        assert ranker is not None
        of_user, of_candidates = self._sides
        specs = columnar_specs(self.model.config, self.columns, of_user)
        specs["k"] = tf.TensorSpec([], tf.int32, name="k")

        @tf.function(autograph=False)
        def rank(inputs: Tensors) -> Outputs:
            user = [column for column in self.columns if column.feature in of_user]
            candidates = [column for column in self.columns if column.feature in of_candidates]
            logit = ranker.logits(
                self._encoded(self._raw(inputs, user, DENSE in of_user)),
                self._encoded(self._raw(inputs, candidates, DENSE in of_candidates)),
            )
            probability = self._probability(logit)
            k = tf.clip_by_value(inputs["k"], 0, tf.shape(logit)[0])
            top, index = tf.math.top_k(probability[:, 0], k)
            return {"probability": probability, "logit": logit, "top_probability": top, "top_index": index}

        return rank.get_concrete_function(specs)

    def _raw(self, inputs: Tensors, columns: Sequence[InputColumn], with_dense: bool) -> Raw:
        if with_dense:
            batch_size = tf.shape(inputs[DENSE])[0]
        else:
            first = columns[0]
            name = first.name if first.hotness is not None else f"{first.name}_row_lengths"
            batch_size = tf.shape(inputs[name])[0]
        raw: Raw = {column.feature: column.read(inputs, batch_size) for column in columns}
        if with_dense:
            raw[DENSE] = inputs[DENSE]
        return raw

    def _encoded(self, raw: Raw) -> dict[str, Any]:
        return self._encoder.encode(raw) if self._encoder is not None else dict(raw)

    def _scores(self, features: dict[str, Any]) -> Outputs:
        logit = tf.cast(self.model(features, training=False), tf.float32)  # [B, tasks]
        return {"probability": self._probability(logit), "logit": logit}

    def _probability(self, logit: tf.Tensor) -> tf.Tensor:
        return self.model.probability(logit)
