"""A trained model as a SavedModel that stock TensorFlow loads: raw values in, probabilities out, no custom ops.

    OUT/
      1/                      a version, TensorFlow Serving's layout; appears whole or not at all
        saved_model.pb
        variables/
        assets.extra/         warm-up requests, manifest, schema, recorded requests
      2/

See docs/decisions/0007-serving.md for the signatures, `savedmodels.inputs` for the names of their tensors, and
`savedmodels.serving_rows` for how rows are stored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from savedmodels.bundle import ARRAYS, fill_variables
from savedmodels.graph_ops import foreign_ops
from savedmodels.manifest import MANIFEST_FILE, write_manifest
from savedmodels.raw_encoding import RawEncoder
from savedmodels.recorded import record_requests
from savedmodels.sample_requests import sample_requests
from savedmodels.serving_rows import PART_BYTES, ServingPlacement, StoredArray, plan_serving
from savedmodels.signatures import Encoder, Signatures
from savedmodels.versions import new_version
from savedmodels.warmup import write_warmup
from tfdlrm.checks import quoted
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.layers.table_variable import dense_weights
from tfdlrm.models.dlrm import DLRM
from tfdlrm.schema import FeatureSpec
from tfdlrm.yaml_text import dump_yaml

MODEL_FILE = "model.yaml"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export holds.

    Args:
        quantize: how rows are stored, one of `savedmodels.names.QUANTIZATIONS`; "none" as they are.
        signatures: names, see `savedmodels.names.SIGNATURES`; None for all that the model can have.
        candidates: inputs that are the candidates' in `rank`; all others are the user's. None: no `rank`.
        unseen: what becomes of a value that is not in a vocabulary without an out-of-vocabulary row, "error" or "zero".
        kept: stored table -> bool `[V]`, the rows to keep; rows left out read as zeros.
        model_name: that clients will use, for the warm-up requests.
        metrics: of the model, for the manifest.
        part_bytes: upper limit of one tensor of rows.
    """

    quantize: str = "none"
    signatures: tuple[str, ...] | None = None
    candidates: tuple[str, ...] = ()
    unseen: str = "error"
    kept: Mapping[str, np.ndarray] = field(default_factory=dict)
    model_name: str = "model"
    metrics: Mapping[str, float] = field(default_factory=dict)
    part_bytes: int = PART_BYTES


def export(
    model: DLRM,
    path: str | os.PathLike[str],
    *,
    spec: FeatureSpec | None = None,
    preprocessing: Preprocessing | None = None,
    encoder: Encoder | None = None,
    version: int | None = None,
    options: ExportOptions | None = None,
) -> Path:
    """Writes a model as the next numbered version below a folder.

    Args:
        model: a built model.
        path: the folder of all versions; made where it does not exist.
        spec: the schema the model was trained on, for a model whose inputs are encoded already; needed where ids have
            weights.
        preprocessing: of the training run: the export then takes raw values.
        encoder: of raw values, where it is not that of `preprocessing`.
        version: default: one more than the highest there.
        options: default `ExportOptions()`.

    Returns:
        The version's folder.

    Raises:
        ValueError: the model is not built, the version is not a positive number, an option is not
            valid, or the model holds an op that stock TensorFlow does not have.
        FileExistsError: the version is there already.
        OSError: the disk is full or read-only; nothing is left behind.

    Example:
        >>> folder = export(model, "exports/clicks", preprocessing=splits.preprocessing)
        >>> tf.saved_model.load(str(folder)).signatures["predict"](**inputs)["probability"]
    """
    with new_version(path, version) as (partial, number):
        write_version(partial, number, model, spec=spec, preprocessing=preprocessing, encoder=encoder, options=options)
    return Path(path) / str(number)


def write_version(
    folder: Path,
    number: int | None,
    model: DLRM,
    *,
    spec: FeatureSpec | None = None,
    preprocessing: Preprocessing | None = None,
    encoder: Encoder | None = None,
    options: ExportOptions | None = None,
) -> None:
    """Writes a version's files into a folder; see `export`, which makes it appear at once.

    Args:
        folder: empty.
        number: of the version; None where somebody else will number it.
        model, spec, preprocessing, encoder, options: as for `export`.
    """
    if not model.built:
        raise ValueError(
            f"model {quoted(model.name)} is not built, so it has no weights to export. Train or load it first."
        )
    options = options or ExportOptions()
    preprocessing = preprocessing if encoder is None else encoder.preprocessing
    spec = preprocessing.spec if preprocessing is not None else spec
    tables = model.embeddings.tables
    plan = plan_serving(tables.plan, options.quantize, options.part_bytes)
    placement = ServingPlacement(plan, options.quantize, options.kept, options.part_bytes)
    if encoder is None and preprocessing is not None:
        encoder = RawEncoder(preprocessing, options.unseen)
    signatures = Signatures(model, spec, encoder, options.candidates)
    with tables.served_from(placement):
        functions = signatures.trace(options.signatures)
    module, large = _module(functions, placement, encoder)
    tf.saved_model.save(module, str(folder), signatures=functions)
    _refuse_foreign_ops(model, folder)
    arrays = [*placement.arrays(tables), *(encoder.arrays() if encoder is not None else ())]
    # an array that no signature reads has no place in the export
    arrays = [array for array in arrays if array.name in large]
    fill_variables(folder, arrays)
    names = tuple(functions)
    # the live model's answers with the rows rounded as they are stored, so that they can be compared to 1e-6
    with tables.served_from(placement.as_stored(tables)):
        requests = sample_requests(
            model, signatures.columns, preprocessing, names, signatures.of_user, whole_numbers(encoder)
        )
    record_requests(folder, requests)
    write_warmup(folder, options.model_name, requests)
    extra = (folder / MANIFEST_FILE).parent
    if spec is not None:
        spec.save(extra)
    (extra / MODEL_FILE).write_text(dump_yaml(model.config.to_dict()), encoding="utf-8")
    write_manifest(folder, info=_info(number, model, placement, arrays, encoder, options))


def whole_numbers(encoder: Encoder | None) -> frozenset[str]:
    """Dense columns that are whole numbers in a `tf.train.Example`."""
    if encoder is None:
        return frozenset()
    dtypes = encoder.example_dtypes()
    return frozenset(c.name for c in encoder.preprocessing.spec.dense if dtypes.get(c.name) == tf.int64)


def _module(
    functions: Mapping[str, Any], placement: ServingPlacement, encoder: Encoder | None
) -> tuple[tf.Module, dict[str, tf.Variable]]:
    """What TensorFlow saves: exactly what the functions read. No optimizer, no slots, nothing only training needs."""
    read = {id(variable): variable for function in functions.values() for variable in function.variables}
    named = placement.variables_by_name() | (encoder.variables_by_name() if encoder is not None else {})
    large = {name: variable for name, variable in named.items() if id(variable) in read}
    module = tf.Module()
    setattr(module, ARRAYS, large)
    in_arrays = {id(variable) for variable in large.values()}
    module.weights = [variable for key, variable in read.items() if key not in in_arrays]
    parts = encoder.parts() if encoder is not None else []
    if parts:
        module.parts = parts
    for name, function in functions.items():
        ((specs,), _) = function.structured_input_signature
        if len(specs) > 1:
            setattr(module, name, _of_one_dict(function, specs))
    return module, large


def _of_one_dict(function: Any, specs: Mapping[str, tf.TensorSpec]) -> Any:
    """A function of a dict of inputs, as `keras.layers.TFSMLayer` calls it; a loaded signature takes them by name."""

    @tf.function(input_signature=[specs], autograph=False)
    def call(inputs: Mapping[str, tf.Tensor]) -> Any:
        return function(inputs)

    return call


def _info(
    number: int | None,
    model: DLRM,
    placement: ServingPlacement,
    arrays: Sequence[StoredArray],
    encoder: Encoder | None,
    options: ExportOptions,
) -> dict[str, Any]:
    stacks = placement.plan.stacks
    vocabularies = set(encoder.variables_by_name()) if encoder is not None else set()
    sizes = {
        "rows": sum(array.num_bytes for array in arrays if array.name not in vocabularies),
        "vocabularies": sum(array.num_bytes for array in arrays if array.name in vocabularies),
        "dense_weights": sum(int(np.prod(w.shape)) * 4 for w in dense_weights(model.weights)),
    }
    return {
        "version": number,
        "model_name": options.model_name,
        "raw_inputs": encoder is not None,
        "quantization": {name: form.kind for name, form in placement.formats().items()},
        "rows": {table.name: table.vocabulary_size for stack in stacks for table in stack.tables},
        "sizes": sizes,
        "arrays": {a.name: {"rows": a.rows, "width": a.width, "dtype": a.dtype.name} for a in arrays},
        "metrics": dict(options.metrics),
        "row_errors": placement.row_errors(),
    }


def _refuse_foreign_ops(model: DLRM, folder: Path) -> None:
    foreign = foreign_ops(folder)
    if foreign:
        raise ValueError(
            f"model {quoted(model.name)}: the export holds ops that stock TensorFlow does not "
            f"have: {', '.join(foreign)}. "
            "Replace the layers that use them."
        )
