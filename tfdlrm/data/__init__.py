"""Data: files and synthetic rows as `tf.data` batches in the order of a schema.

`open_dataset` turns a `DataConfig` into `Splits` of `Dataset`s; `open_rows` reads a new file the way the training rows
were read. Reading files needs polars (`pip install 'tfdlrm[data]'`); synthetic rows need nothing.

The names below are imported when they are first used (PEP 562): to prepare or inspect data takes no TensorFlow, whose
import takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from tfdlrm.data.dataset import Books, Dataset, InMemoryDataset
    from tfdlrm.data.epochs import ResumableInput
    from tfdlrm.data.movielens_columns import movielens_feature_spec
    from tfdlrm.data.movielens_download import fetch_movielens
    from tfdlrm.data.opening import from_frame, open_dataset, open_rows
    from tfdlrm.data.prepared import open
    from tfdlrm.data.preprocessing import Preprocessing
    from tfdlrm.data.quarantine import BadRow, BadRowError, Quarantine
    from tfdlrm.data.random_batches import RandomBatch, RandomBatches
    from tfdlrm.data.splits import Splits
    from tfdlrm.data.streaming import BlockSource, StreamingDataset
    from tfdlrm.data.synthetic import BestPossible, best_possible, synthetic_dataset

# Public name -> the module that defines it.
_EXPORTS = {
    "BadRow": "tfdlrm.data.quarantine",
    "BadRowError": "tfdlrm.data.quarantine",
    "BestPossible": "tfdlrm.data.synthetic",
    "BlockSource": "tfdlrm.data.streaming",
    "Books": "tfdlrm.data.dataset",
    "Dataset": "tfdlrm.data.dataset",
    "InMemoryDataset": "tfdlrm.data.dataset",
    "Preprocessing": "tfdlrm.data.preprocessing",
    "Quarantine": "tfdlrm.data.quarantine",
    "RandomBatch": "tfdlrm.data.random_batches",
    "RandomBatches": "tfdlrm.data.random_batches",
    "ResumableInput": "tfdlrm.data.epochs",
    "Splits": "tfdlrm.data.splits",
    "StreamingDataset": "tfdlrm.data.streaming",
    "best_possible": "tfdlrm.data.synthetic",
    "fetch_movielens": "tfdlrm.data.movielens_download",
    "from_frame": "tfdlrm.data.opening",
    "movielens_feature_spec": "tfdlrm.data.movielens_columns",
    "open": "tfdlrm.data.prepared",
    "open_dataset": "tfdlrm.data.opening",
    "open_rows": "tfdlrm.data.opening",
    "synthetic_dataset": "tfdlrm.data.synthetic",
}

__all__ = [
    "BadRow",
    "BadRowError",
    "BestPossible",
    "BlockSource",
    "Books",
    "Dataset",
    "InMemoryDataset",
    "Preprocessing",
    "Quarantine",
    "RandomBatch",
    "RandomBatches",
    "ResumableInput",
    "Splits",
    "StreamingDataset",
    "best_possible",
    "fetch_movielens",
    "from_frame",
    "movielens_feature_spec",
    "open",
    "open_dataset",
    "open_rows",
    "synthetic_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(
            f"module 'tfdlrm.data' has no attribute {quoted(name)}. Public names: {', '.join(__all__)}."
        )
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_EXPORTS))
