"""Vectors of the most frequent ids, as TensorBoard's embedding projector reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import tensorflow as tf

from tfdlrm.files import appear, partial_folder
from tfdlrm.metrics.evaluation import probability_of
from tfdlrm.models.dlrm import DLRM
from tfdlrm.native.scope import native_kernels
from tfdlrm.report.groups import ValueNames, id_groupings
from tfdlrm.report.scored_rows import ScoredRows

MOST_IDS = 2000  # of a column: more points than that hide each other
CONFIG_FILE = "projector_config.pbtxt"
_HEADER = ("value", "rows", "positives", "predicted")


def write_projector(folder: Path, model: DLRM, rows: ScoredRows, names: ValueNames) -> list[str]:
    """Writes the pooled vectors of bags of one id, and what is known of the ids.

    Args:
        folder: for `tensorboard --logdir`; made new.
        model: that scored the rows.
        rows: with a sample: the ids are its most frequent ones.
        names: of ids.

    Returns:
        The columns written.

    Raises:
        FileExistsError: the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: is there already. Give a new folder, or empty it.")
    labels, probabilities = rows.sample_labels, probability_of(rows.sample_logits)
    written, entries = [], []
    with partial_folder(folder) as partial:
        for grouping in id_groupings(rows.spec, rows.sample):
            if not len(grouping.codes):
                continue
            codes, place, counts = np.unique(grouping.codes, return_inverse=True, return_counts=True)
            chosen = np.argsort(-counts, kind="stable")[:MOST_IDS]
            positives, predicted = (
                np.bincount(place, values[grouping.row_numbers], len(codes))[chosen]
                for values in (labels, probabilities)
            )
            stem = quote(grouping.column, safe=" ")
            np.savetxt(partial / f"{stem}.tsv", _vectors(model, grouping.column, codes[chosen]), "%.6g", "\t")
            lines: list[tuple[str, ...]] = [_HEADER]
            for k, value in enumerate(names.of(grouping.column, codes[chosen])):
                n = int(counts[chosen][k])
                shares = (f"{share[k] / n:.4f}" for share in (positives, predicted))
                lines.append((" ".join(value.split()) or "(blank)", str(n), *shares))
            text = "".join("\t".join(line) + "\n" for line in lines)
            (partial / f"{stem}.metadata.tsv").write_text(text, encoding="utf-8")
            entries.append((grouping.column, f"{stem}.tsv", f"{stem}.metadata.tsv"))
            written.append(grouping.column)
        (partial / CONFIG_FILE).write_text("".join(_entry(*entry) for entry in entries), encoding="utf-8")
        appear(partial, folder)
    return written


def _vectors(model: DLRM, column: str, ids: np.ndarray) -> np.ndarray:
    """float32 [n, D]: of bags of one id, weighted by 1."""
    feature = next(feature for feature in model.config.features if feature.name == column)
    values: Any = tf.constant(ids, tf.int64)
    if feature.hotness is None:
        values = tf.RaggedTensor.from_row_lengths(values, np.ones(len(ids), np.int64))
    elif feature.hotness > 1:  # the other places of the bag count nothing
        shape = [len(ids), feature.hotness]
        values = tf.broadcast_to(values[:, None], shape), tf.broadcast_to(tf.one_hot(0, shape[1]), shape)
    with native_kernels():
        return tf.cast(model.embeddings.pooled({column: values}), tf.float32).numpy()[:, 0]


def _entry(name: str, tensors: str, metadata: str) -> str:
    fields = {"tensor_name": name, "tensor_path": tensors, "metadata_path": metadata}
    lines = "".join(f'  {field}: "{_escaped(value)}"\n' for field, value in fields.items())
    return f"embeddings {{\n{lines}}}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
