"""Names: of signatures, quantizations, policies, and of the tensors of signatures. TensorFlow is not needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfdlrm.schema import FeatureSpec

SERVING_DEFAULT = "serving_default"
PREDICT = "predict"
RANK = "rank"
EMBED = "embed"
SIGNATURES = (SERVING_DEFAULT, PREDICT, RANK, EMBED)

QUANTIZATIONS = ("none", "bf16", "int8", "int4")
UNSEEN_POLICIES = ("error", "zero")

DENSE = "dense"
EXAMPLES = "examples"
ROW_LENGTHS = "_row_lengths"
WEIGHTS = "_weights"


def input_name(feature: str) -> str:
    """The name of a feature in the signature: characters that TensorFlow does not allow there become `_`.

    Example:
        >>> input_name("hour of day"), input_name("user"), input_name("2nd")
        ('hour_of_day', 'user', 'feature_2nd')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", feature)
    # "self" cannot be passed by name to a Python function, which a loaded signature is
    return name if name[0].isalpha() and name != "self" else f"feature_{name}"


def input_names(features: Sequence[str]) -> dict[str, str]:
    """Feature -> its name in the signature: `input_name`, and a number behind it where that is taken.

    Example:
        >>> input_names(["hour of day", "hour/of/day"])
        {'hour of day': 'hour_of_day', 'hour/of/day': 'hour_of_day_2'}
    """
    taken, names = {DENSE, EXAMPLES}, {}
    plain = {feature: input_name(feature) for feature in features}
    # names that need no change are given first
    for feature in sorted(features, key=lambda feature: plain[feature] != feature):
        name, number = plain[feature], 1
        while not taken.isdisjoint(_all_names(name)):
            number += 1
            name = f"{plain[feature]}_{number}"
        taken |= _all_names(name)
        names[feature] = name
    return {feature: names[feature] for feature in features}


def _all_names(name: str) -> set[str]:
    """Of the tensors of a feature, in the letters by which TensorFlow tells the inputs of a signature apart."""
    return {each.lower() for each in (name, name + ROW_LENGTHS, name + WEIGHTS)}


def input_of_features(spec: FeatureSpec) -> dict[str, str]:
    """Feature -> the raw input that it is made of: a column, or "dense" where that is a dense one."""
    dense = {column.name for column in spec.dense}
    return {each.name: DENSE if each.raw_name in dense else each.raw_name for each in spec.categorical}
