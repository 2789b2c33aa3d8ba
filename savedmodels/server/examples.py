"""Classify and Regress: tf.train.Examples in, labels and scores or values out, for signatures of TensorFlow's form.

As in TensorFlow Serving, that form is one input `inputs`, string [B], and the outputs `classes` (string [B, C]) and/or
`scores` (float32 [B, C]), or one output `outputs` (float32 [B] or [B, 1]). Other signatures are for Predict.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from savedmodels.server.errors import ServingError
from savedmodels.wire.protos import classification_pb2, regression_pb2
from savedmodels.wire.signatures import DEFAULT_SIGNATURE, SignatureSpec
from tfdlrm.checks import quoted

INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"


def check_tasks(tasks: Sequence[Any]) -> None:
    """Refuses tasks that one MultiInference cannot answer together.

    Args:
        tasks: `InferenceTask`s.

    Raises:
        ServingError: INVALID_ARGUMENT: none, two models, or a signature twice; UNIMPLEMENTED: another method than
            Classify and Regress.
    """
    if not tasks:
        raise ServingError("INVALID_ARGUMENT", "The request has no tasks. Give at least one.")
    names = {task.model_spec.name for task in tasks}
    if len(names) > 1:
        raise ServingError(
            "INVALID_ARGUMENT",
            f"All ModelSpecs in a MultiInferenceRequest must access the same model name; these do: "
            f"{', '.join(quoted(name[:100]) for name in sorted(names)[:5])}.",
        )
    seen: set[str] = set()
    for task in tasks:
        if task.method_name not in METHODS:
            raise ServingError(
                "UNIMPLEMENTED",
                f"Unsupported signature method_name: {quoted(task.method_name[:100])}. Use {' or '.join(METHODS)}.",
            )
        signature = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if signature in seen:
            raise ServingError("INVALID_ARGUMENT", f"Duplicate evaluation of signature: {quoted(signature[:100])}.")
        seen.add(signature)


def check_classify(signature: SignatureSpec) -> None:
    """Refuses signatures that are not for Classify.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    _check_form(
        signature,
        "Classify",
        f"{quoted(CLASSES)} (string [B, C]) and/or {quoted(SCORES)} (float32 [B, C])",
        {CLASSES, SCORES},
    )


def check_regress(signature: SignatureSpec) -> None:
    """Refuses signatures that are not for Regress.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    _check_form(signature, "Regress", f"{quoted(OUTPUTS)} (float32 [B] or [B, 1])", {OUTPUTS})


def _check_form(signature: SignatureSpec, method: str, wanted: str, names: set[str]) -> None:
    outputs = set(signature.outputs)
    if not (signature.takes_examples and set(signature.inputs) == {INPUTS} and outputs and outputs <= names):
        raise ServingError(
            "INVALID_ARGUMENT",
            f"signature {quoted(signature.name)} is not for {method}, which needs the one input "
            f"{quoted(INPUTS)} (string [B]) "
            f"and the outputs {wanted}. It takes {', '.join(signature.inputs)} and gives "
            f"{', '.join(signature.outputs)}: use Predict.",
        )


def serialized_examples(request_input: Any, max_rows: int, max_bytes: int) -> np.ndarray:
    """The Examples of an `Input`, each with the context's features added, serialized; string [B].

    Args:
        request_input: as it came.
        max_rows, max_bytes: that they may have: each Example gets the whole context.

    Raises:
        ServingError: INVALID_ARGUMENT: there are none, or too many.
    """
    with_context = request_input.WhichOneof("kind") == "example_list_with_context"
    held = request_input.example_list_with_context if with_context else request_input.example_list
    if len(held.examples) > max_rows:
        raise ServingError(
            "INVALID_ARGUMENT",
            f"The input has {len(held.examples)} examples; a request may have {max_rows}. Send it in parts.",
        )
    if with_context:
        num_bytes = held.ByteSize() + len(held.examples) * held.context.ByteSize()
        if num_bytes > max_bytes:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"The input takes {num_bytes} bytes with the context added to each example; {max_bytes} are allowed. "
                "Send it in parts.",
            )
        context = held.context.features.feature
        serialized = []
        for example in held.examples:
            merged = type(example)()
            for name, feature in context.items():
                merged.features.feature[name].CopyFrom(feature)
            for name, feature in example.features.feature.items():  # its own win
                merged.features.feature[name].CopyFrom(feature)
            serialized.append(merged.SerializeToString())
    else:
        serialized = [example.SerializeToString() for example in held.examples]
    if not serialized:
        raise ServingError("INVALID_ARGUMENT", "The request's input has no examples.")
    array = np.empty(len(serialized), object)
    array[:] = serialized
    return array


def input_maker(
    request_input: Any, max_rows: int, max_bytes: int
) -> Callable[[SignatureSpec], Mapping[str, np.ndarray]]:
    """For `Inference.predict`, of one signature or more; see `serialized_examples`."""
    serialized = functools.cache(lambda: serialized_examples(request_input, max_rows, max_bytes))
    return lambda signature: {INPUTS: serialized()}


def classification_result(outputs: Mapping[str, np.ndarray]) -> Any:
    """A `ClassificationResult`.

    Raises:
        ServingError: INVALID_ARGUMENT: an output has not the shape [B, C].
    """
    for name, array in outputs.items():
        if array.ndim != 2:
            raise ServingError("INVALID_ARGUMENT", f"output {quoted(name)}: shape {list(array.shape)} is not [B, C].")
    labels, scores = outputs.get(CLASSES), outputs.get(SCORES)
    if labels is not None and scores is not None and labels.shape != scores.shape:
        raise ServingError(
            "INVALID_ARGUMENT",
            f"{quoted(CLASSES)} {list(labels.shape)} and {quoted(SCORES)} {list(scores.shape)} differ in shape.",
        )
    shape = (labels if labels is not None else outputs[SCORES]).shape
    result = classification_pb2.ClassificationResult()
    for row in range(shape[0]):
        classifications = result.classifications.add()
        for column in range(shape[1]):
            one = classifications.classes.add()
            if labels is not None:
                one.label = labels[row, column].decode("utf-8", "replace")
            if scores is not None:
                one.score = float(scores[row, column])
    return result


def regression_result(outputs: Mapping[str, np.ndarray]) -> Any:
    """A `RegressionResult`.

    Raises:
        ServingError: INVALID_ARGUMENT: the output is not float32 [B] or [B, 1].
    """
    array = outputs[OUTPUTS]
    if array.dtype != np.float32 or not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise ServingError(
            "INVALID_ARGUMENT",
            f"output {quoted(OUTPUTS)}: {array.dtype} {list(array.shape)} is not float32 [B] or [B, 1].",
        )
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add().value = value
    return result


@dataclass(frozen=True, kw_only=True)
class ExampleMethod:
    """A method that takes Examples.

    Args:
        name: in a task of MultiInference.
        check: refuses signatures that are not for it.
        result: from a signature's outputs to the message of its answer.
        field: of that message in an answer of MultiInference.
    """

    name: str
    check: Callable[[SignatureSpec], None]
    result: Callable[[Mapping[str, np.ndarray]], Any]
    field: str


CLASSIFY = ExampleMethod(
    name="tensorflow/serving/classify",
    check=check_classify,
    result=classification_result,
    field="classification_result",
)
REGRESS = ExampleMethod(
    name="tensorflow/serving/regress", check=check_regress, result=regression_result, field="regression_result"
)
METHODS: Mapping[str, ExampleMethod] = {method.name: method for method in (CLASSIFY, REGRESS)}
