"""Vocabularies inside of an export: sorted keys and binary search, with stock ops.

A table of TensorFlow takes about 80 bytes a value and is built at every load. Sorted keys in a variable take 12 (a
64-bit key and the id), load as fast as they can be read, and stay in place when the model is reloaded beside itself.
Text is sorted by a 64-bit fingerprint; the text itself is compared too, so that no unseen text takes another's id.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from savedmodels.serving_rows import StoredArray, empty_variable
from tfdlrm.data.vocabulary import UNSEEN, Vocabulary
from tfdlrm.schema import OOV_ID

# of FarmHash's fingerprints, which are taken modulo this
FINGERPRINTS = 2**63 - 1


class VocabularyLookup(tf.Module):
    """The ids of one table's values.

    Args:
        name: of the variables.
        vocabulary: the values.
    """

    def __init__(self, name: str, vocabulary: Vocabulary):
        super().__init__(name=name)
        self._label = name
        self.size = len(vocabulary.values)
        self.is_text = str(vocabulary.values.dtype) == "String"
        self.default = OOV_ID if vocabulary.has_oov else UNSEEN
        if self.is_text:
            texts = np.array([value.encode() for value in vocabulary.values.to_list()], object)
            keys = fingerprints(tf.constant(texts, tf.string)).numpy() if self.size else np.zeros(0, np.int64)
        else:
            keys = vocabulary.values.to_numpy().astype(np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._ids = (order + vocabulary.has_oov).astype(np.int32 if self.size < 2**31 else np.int64)
        self.keys = empty_variable(f"{name}_keys", tf.as_dtype(tf.int64), 1)
        self.ids = empty_variable(f"{name}_ids", tf.as_dtype(self._ids.dtype), 1)
        # text is no array of fixed width: TensorFlow saves it itself
        self.texts = tf.Variable(texts[order], trainable=False) if self.is_text else None
        # how many values share a fingerprint at most: 1, but nothing guarantees it
        self._runs = int(np.unique(self._keys, return_counts=True)[1].max(initial=1))

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """int64 ids of values of any shape; `default` for what is not in the vocabulary."""
        default = tf.fill(tf.shape(values), tf.constant(self.default, tf.int64))
        if not self.size:
            return default
        flat = tf.reshape(values, [-1])
        wanted = fingerprints(flat) if self.is_text else flat
        keys = tf.reshape(self.keys, [-1])
        place = tf.searchsorted(keys, wanted, out_type=tf.int32 if self.size < 2**31 else tf.int64)
        found = tf.reshape(default, [-1])
        for run in range(self._runs):
            at = tf.minimum(place + run, self.size - 1)
            is_same = tf.equal(tf.gather(self.texts, at), flat) if self.is_text else tf.equal(tf.gather(keys, at), flat)
            found = tf.where(is_same, tf.cast(tf.gather(self.ids, at)[:, 0], tf.int64), found)
        return tf.reshape(found, tf.shape(values))

    def arrays(self) -> Iterator[StoredArray]:
        """What the variables hold."""
        yield _column(f"{self._label}_keys", self._keys)
        yield _column(f"{self._label}_ids", self._ids)

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Name in the module -> variable, of those whose content is written later."""
        return {f"{self._label}_keys": self.keys, f"{self._label}_ids": self.ids}


def _column(name: str, values: np.ndarray) -> StoredArray:
    dtype = tf.as_dtype(values.dtype)
    return StoredArray(
        name=name, rows=len(values), width=1, dtype=dtype, read=lambda start, stop: values[start:stop, np.newaxis]
    )


def fingerprints(texts: tf.Tensor) -> tf.Tensor:
    """int64 FarmHash fingerprints of the bytes."""
    return tf.strings.to_hash_bucket_fast(texts, FINGERPRINTS)
