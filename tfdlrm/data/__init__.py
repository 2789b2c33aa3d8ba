"""Data: files and synthetic rows as `tf.data` batches in the order of a schema.

`open_dataset` turns a `DataConfig` into `Splits` of `Dataset`s; `open_rows` reads a new file the way the training rows
were read. Reading files needs polars (`pip install 'tfdlrm[data]'`); synthetic rows need nothing.
"""

from tfdlrm.data.dataset import Books, Dataset
from tfdlrm.data.epochs import ResumableInput
from tfdlrm.data.memory import InMemoryDataset
from tfdlrm.data.movielens_columns import movielens_feature_spec
from tfdlrm.data.movielens_download import fetch_movielens
from tfdlrm.data.opening import open_dataset, open_rows
from tfdlrm.data.prepared_input import open
from tfdlrm.data.preprocessing import Preprocessing
from tfdlrm.data.quarantine import BadRow, BadRowError, Quarantine
from tfdlrm.data.random_batches import RandomBatch, RandomBatches
from tfdlrm.data.splits import Splits
from tfdlrm.data.streaming import BlockSource, StreamingDataset
from tfdlrm.data.synthetic import BestPossible, best_possible, synthetic_dataset

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
    "movielens_feature_spec",
    "open",
    "open_dataset",
    "open_rows",
    "synthetic_dataset",
]
