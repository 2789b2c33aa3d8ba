"""Rows that another process reads for itself: it is told their origin, and which of them.

An origin is the text by which a dataset is opened again: where its files are, and what they must be; or the
configuration of rows that are made. Rows held in memory have none.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import tensorflow as tf

from tfdlrm.config.data import SyntheticConfig
from tfdlrm.data.batching import BatchPlan
from tfdlrm.data.dataset import Dataset
from tfdlrm.data.python_calls import register, registered_call
from tfdlrm.data.streaming import StreamingDataset, shaped

_OPEN, _READ = "tfdlrm/open_rows", "tfdlrm/read_rows"
_OTHER_DATA = "other data"
_KEPT = 8  # datasets that a process holds open: the parts of a few trainings


class RowsUnreadableError(OSError):
    """Rows that were there when the training began cannot be read."""


class OtherDataError(ValueError):
    """An origin's folder holds other prepared data here than where the origin is from."""


def origin_of(rows: Dataset) -> str | None:
    """The origin of a dataset's rows, as JSON; None where no other process can open them."""
    if not isinstance(rows, StreamingDataset) or rows.origin is None:
        return None
    return json.dumps(rows.origin, sort_keys=True)


@functools.lru_cache(maxsize=_KEPT)
def open_origin(origin: str) -> StreamingDataset:
    """The rows of an origin, opened once.

    Raises:
        FileNotFoundError, ValueError, ImportError: they cannot be opened here; says why.
    """
    return open_anew(origin)


def open_anew(origin: str) -> StreamingDataset:
    """`open_origin`, whatever was opened before."""
    told = json.loads(origin)
    if told["format"] == "synthetic":
        from tfdlrm.data.synthetic import synthetic_dataset

        return synthetic_dataset(SyntheticConfig.from_dict(told["config"]), told["start"], told["stop"])
    from tfdlrm.data.prepared import prepared_dataset

    shard = None if told["shard"] is None else (told["shard"][0], told["shard"][1])
    rows = prepared_dataset(told["folder"], told["part"], shard=shard, max_rows=told["max_rows"])
    if rows.origin is None or rows.origin["manifest"] != told["manifest"]:
        raise OtherDataError(f"{told['folder']}: its manifest is another one. Give every process the same data")
    return rows


def why_not_there(origin: str, device: str) -> str:
    """Why the process of a device cannot open an origin; empty where it can.

    Raises:
        OtherDataError: it would read other rows.
        tf.errors.OpError: the process does not know what an origin is, or is gone.
    """
    with tf.device(device):
        (told,) = registered_call(_OPEN, [tf.constant(origin)], [tf.string])
    kind, text = json.loads(told.numpy())
    if kind == _OTHER_DATA:
        raise OtherDataError(text)
    return str(text)


def read_batch(rows: StreamingDataset, plan: BatchPlan, epoch: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tuple:
    """The batch of rows [start, stop) of an epoch, read by the process that the graph runs in.

    Args:
        rows: with an origin.
        plan: how rows become batches; its shuffle and seed are the epoch's.
        epoch, start, stop: int64 scalars.
    """
    form = rows.row_form(plan)
    order = tf.constant(json.dumps([origin_of(rows), plan.shuffle, plan.seed]))
    dtypes = [spec.dtype for spec in tf.nest.flatten(form)]
    return rows.to_batch(plan, shaped(registered_call(_READ, [order, epoch, start, stop], dtypes), form))


def _open(origin: bytes) -> list[Any]:
    try:
        open_origin(origin.decode())
    except OtherDataError as error:
        return [json.dumps([_OTHER_DATA, str(error)])]
    except (OSError, ValueError, ImportError) as error:
        return [json.dumps(["", str(error)])]
    return [json.dumps(["", ""])]


def _read(order: bytes, epoch: np.ndarray, start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
    origin, shuffle, seed = json.loads(order)
    try:
        rows = open_origin(origin)
        plan = BatchPlan(batch_size=1, shuffle=shuffle, seed=seed)
        return rows.read_rows(plan, int(epoch), int(start), int(stop))
    except (OSError, ValueError, ImportError) as error:
        raise RowsUnreadableError(str(error)) from error


register(_OPEN, _open)
register(_READ, _read)
