"""Background: what training rows look like, column by column, kept beside a run.

`background.npz` has 8,192 training rows, each column shuffled by itself: it tells how the values of a column are
distributed and nothing of what stands together in a row. Explanations take their mean from it, reports compare other
rows with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfdlrm.array_files import read_arrays
from tfdlrm.data.columns import Columns, RaggedColumn, fixed_columns, id_dtype, permuted, weighted_columns
from tfdlrm.data.dataset import Dataset
from tfdlrm.files import atomic_path
from tfdlrm.schema import ROW_ID, FeatureSpec

BACKGROUND_FILE = "background.npz"
MOST_ROWS = 8192


def background_of(dataset: Dataset, seed: int = 0, num_rows: int = MOST_ROWS) -> Columns:
    """Some rows of a dataset, without labels and keys, each column in an order of its own.

    Args:
        dataset: the training part.
        seed: of the rows and the orders.
        num_rows: at most.
    """
    rows, spec = dataset.sample(num_rows, seed), dataset.spec
    random = np.random.default_rng(seed)
    random = np.random.default_rng(seed)
    for name in spec.input_names:
        rows = permuted(spec, rows, [name], random.permutation(rows.num_rows))
    return _unlabelled(spec, rows.dense, rows.ids, rows.weights, rows.ragged)


def save_background(file: Path, spec: FeatureSpec, background: Columns) -> None:
    """Writes it; the file appears whole or not at all."""
    arrays = {"dense": background.dense, "ids": background.ids, "weights": background.weights}
    for number, column in enumerate(spec.categorical):
        if column.hotness is None:
            bags = background.ragged[column.name]
            arrays |= {f"values_{number}": bags.values, f"row_splits_{number}": bags.row_splits}
            if bags.weights is not None:
                arrays[f"weights_{number}"] = bags.weights
    with atomic_path(file) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load_background(file: Path, spec: FeatureSpec) -> Columns | None:
    """What `save_background` wrote; None where there is no file, as of a run that an older version trained.

    Raises:
        ValueError: the file is damaged, or of other columns; names it.
    """
    if not file.is_file():
        return None
    try:
        return _from_arrays(spec, read_arrays(file))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{file}: not the background of this run's columns ({error}). Remove it; explanations then need the run's "
            "training data."
        ) from error


def _from_arrays(spec: FeatureSpec, arrays: Mapping[str, np.ndarray]) -> Columns:
    widths = {
        "dense": spec.num_dense,
        "ids": max((place.stop for place in fixed_columns(spec).values()), default=0),
        "weights": max((place.stop for place in weighted_columns(spec).values()), default=0),
    }
    num_rows = len(arrays["dense"])
    for name, width in widths.items():
        if arrays[name].shape != (num_rows, width):
            raise ValueError(f"{name} of shape {arrays[name].shape}, not {(num_rows, width)}")
    ragged = {}
    for number, column in enumerate(spec.categorical):
        if column.hotness is not None:
            continue
        values, splits = arrays[f"values_{number}"], arrays[f"row_splits_{number}"].astype(np.int64)
        bounds = splits.shape == (num_rows + 1,) and splits[0] == 0 and splits[-1] == len(values)
        if not bounds or (np.diff(splits) < 0).any():
            raise ValueError(f"row_splits_{number} do not fit {len(values)} values and {num_rows} rows")
        weights = arrays[f"weights_{number}"].astype(np.float32) if column.weights else None
        if weights is not None and weights.shape != values.shape:
            raise ValueError(f"weights_{number} of shape {weights.shape}, not {values.shape}")
        ragged[column.name] = RaggedColumn(values=values.astype(id_dtype(spec)), row_splits=splits, weights=weights)
    dense, ids = arrays["dense"].astype(np.float32), arrays["ids"].astype(id_dtype(spec))
    return _unlabelled(spec, dense, ids, arrays["weights"].astype(np.float32), ragged)


def _unlabelled(
    spec: FeatureSpec, dense: np.ndarray, ids: np.ndarray, weights: np.ndarray, ragged: Mapping[str, RaggedColumn]
) -> Columns:
    labels = np.full([len(dense), len(spec.labels)], np.nan, np.float32)
    keys = {ROW_ID: np.arange(len(dense))}
    return Columns(dense=dense, labels=labels, ids=ids, weights=weights, ragged=ragged, keys=keys)
