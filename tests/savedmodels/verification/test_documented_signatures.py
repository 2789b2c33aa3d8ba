"""Signatures that are not as documented are told by signature and tensor."""

from __future__ import annotations

import json

import pytest

from savedmodels.verification.documented_signatures import signature_problems

ANY = None


def tensor(dtype, *shape):
    return {"dtype": dtype, "shape": list(shape), "tensor": "x:0"}


PREDICTIONS = {"probability": tensor("float32", ANY, 1), "logit": tensor("float32", ANY, 1)}
COLUMNS = {
    "dense": tensor("float32", ANY, 13),
    "user": tensor("int64", ANY),
    "last_items": tensor("int64", ANY, 3),
    "genres": tensor("string", ANY),
    "genres_row_lengths": tensor("int64", ANY),
    "genres_weights": tensor("float32", ANY),
}
SIGNATURES = {
    "serving_default": {"inputs": {"examples": tensor("string", ANY)}, "outputs": PREDICTIONS},
    "predict": {"inputs": COLUMNS, "outputs": PREDICTIONS},
    "rank": {
        "inputs": {**COLUMNS, "k": tensor("int32")},
        "outputs": {**PREDICTIONS, "top_index": tensor("int32", ANY), "top_probability": tensor("float32", ANY)},
    },
    "embed": {
        "inputs": COLUMNS,
        "outputs": {"embeddings": tensor("float32", ANY, 4, 16), "dense_vector": tensor("float32", ANY, 16)},
    },
}


def test_documented_signatures_pass():
    assert signature_problems(SIGNATURES, SIGNATURES) == []
    assert signature_problems(SIGNATURES) == []
    # encoded columns as the default
    assert signature_problems({"serving_default": SIGNATURES["predict"]}) == []
    # a feature whose name ends like weights
    ids = {"inputs": {"user": tensor("int64", ANY), "user_weights": tensor("int64", ANY)}, "outputs": PREDICTIONS}
    assert signature_problems({"serving_default": ids}) == []


@pytest.mark.parametrize(
    ("signature", "kind", "name", "given", "problem"),
    [
        ("predict", "inputs", "user", tensor("float32", ANY), "input 'user' is float32, and ids are int64 or string"),
        ("embed", "inputs", "user", tensor("int32", ANY), "input 'user' is int32, and ids are int64 or string"),
        (
            "predict",
            "inputs",
            "dense",
            tensor("float64", ANY, 13),
            "input 'dense' is float64, and float32 is documented",
        ),
        ("predict", "inputs", "dense", tensor("float32", ANY), "input 'dense' has shape [None], and rank 2"),
        ("predict", "inputs", "genres_weights", tensor("float16", ANY), "input 'genres_weights' is float16, and ids"),
        (
            "predict",
            "inputs",
            "genres_weights",
            tensor("float32", ANY, 3),
            "'genres_weights' has not the shape of its ids",
        ),
        ("predict", "inputs", "genres_row_lengths", tensor("string", ANY), "is string, and row lengths are int64"),
        ("predict", "inputs", "orphan_weights", tensor("float32", ANY), "input 'orphan_weights' is float32, and ids"),
        ("predict", "inputs", "user", tensor("int64"), "input 'user' has shape [], and [B], [B, H] or [N] is expected"),
        ("predict", "outputs", "logit", tensor("float32", ANY), "output 'logit' has shape [None], and rank 2"),
        ("rank", "inputs", "k", tensor("int64"), "input 'k' is int64, and int32 is documented"),
        ("rank", "inputs", "k", None, "input 'k' is missing"),
        ("rank", "outputs", "top_index", tensor("int64", ANY), "output 'top_index' is int64, and int32 is documented"),
        ("embed", "outputs", "dense_vector", None, "output 'dense_vector' is missing"),
        ("serving_default", "inputs", "examples", tensor("int64", ANY), "input 'examples' is int64, and string"),
        ("serving_default", "inputs", "user", tensor("int64", ANY), "input 'user' beside 'examples' is not documented"),
    ],
)
def test_what_is_not_as_documented_is_told(signature, kind, name, given, problem):
    signatures = json.loads(json.dumps(SIGNATURES))  # nothing shared, as `deepcopy` would leave it
    if given is None:
        del signatures[signature][kind][name]
    else:
        signatures[signature][kind][name] = given
    problems = signature_problems(signatures)
    assert len(problems) == 1
    assert problems[0].startswith(f"signature {signature!r}: ")
    assert problem in problems[0]


def test_a_difference_from_the_manifest_is_told():
    manifest = json.loads(json.dumps(SIGNATURES))  # nothing shared, as `deepcopy` would leave it
    manifest["predict"]["inputs"]["user"]["shape"] = [ANY, 2]
    manifest["predict"]["inputs"]["item"] = tensor("int64", ANY)
    del manifest["predict"]["outputs"]["logit"], manifest["embed"]
    manifest["explain"] = manifest["rank"]
    assert signature_problems(SIGNATURES, manifest) == [
        "signature 'explain' is missing",
        "signature 'predict': input 'item' of the manifest is missing",
        "signature 'predict': input 'user' has shape [None], and [None, 2] in the manifest",
        "signature 'predict': output 'logit' is not in the manifest",
        "signature 'embed' is not in the manifest",
    ]
