"""Names and lists of layers as TensorFlow's scopes and checkpoints take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def track_lists(owner: keras.layers.Layer, **lists: Any) -> None:
    """Shows `tf.train.Checkpoint`, which looks at attributes only, what a layer has in lists and dicts.

    Args:
        owner: the layer.
        lists: attribute name -> layers or variables, a list or a dict.
    """
    for attribute, items in lists.items():
        for key, item in items.items() if isinstance(items, Mapping) else enumerate(items):
            name = f"{attribute}_{key}"
            owner._track_trackable(item, name)
            owner._handle_deferred_dependencies(name, item)  # of a checkpoint restored before


def scope_name(name: str) -> str:
    """A name as TensorFlow allows it in scopes and Keras in layers; no two names become one.

    Example:
        >>> scope_name("a b")
        'a.20.b'
    """
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_-" else f".{ord(c):x}." for c in name)
