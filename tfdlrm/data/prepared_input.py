"""open: prepared data as a `tf.data.Dataset`."""

from __future__ import annotations

import os
from typing import Literal

import tensorflow as tf

from tfdlrm.data.epochs import ResumableInput


def open(
    path: str | os.PathLike[str],
    batch_size: int,
    *,
    part: Literal["train", "validation", "test"] = "train",
    shuffle: bool = False,
    seed: int = 0,
    shard: tuple[int, int] | tf.distribute.InputContext | None = None,
    epoch: int = 0,
    start_batch: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches `(features, labels)` of prepared data; every iterator gives one epoch, the next one the next epoch.

    Shuffling takes blocks of 4,096 rows in random order and mixes the rows of 64 blocks at a time (262,144 rows), by
    (seed, epoch): a row meets rows from all over the part. Nothing is done in Python for single rows.

    Args:
        path: the folder that `tfdlrm data prepare` wrote.
        batch_size: rows a batch; the last batch of an epoch may have fewer.
        part: which part.
        shuffle, seed: a new order each epoch.
        shard: (index, count), or what `distribute_datasets_from_function` hands over: contiguous rows, each row in
            exactly one shard, sizes that differ by at most one row. Under an input context, `batch_size` is that of
            one replica group, as usual.
        epoch, start_batch: the position to begin at; the batches before it are not read.
        drop_remainder: leave out a last batch of fewer rows.

    Raises:
        FileNotFoundError, ValueError: there are no such prepared data; the message says what is wrong.
        ImportError: pyarrow is not installed.

    Example:
        >>> train = tfdlrm.data.open("kaggle", 2048, shuffle=True, seed=1)
        >>> model.fit(train, epochs=2, shuffle=False)  # the rows are shuffled already
    """
    from tfdlrm.data.prepared import prepared_dataset

    if isinstance(shard, tf.distribute.InputContext):
        shard = (shard.input_pipeline_id, shard.num_input_pipelines)
    dataset = prepared_dataset(path, part, shard=shard)
    resumable = ResumableInput(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        position=(epoch, start_batch),
        drop_remainder=drop_remainder,
    )
    batches = resumable.dataset()
    if start_batch == 0:
        # told to TensorFlow, it outlives what is done to the dataset later; a first epoch that is shorter cannot be
        batches = batches.apply(tf.data.experimental.assert_cardinality(resumable.num_batches))
    if shard is None:
        return resumable.mark(batches)
    # each worker has its own rows already
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return resumable.mark(batches.with_options(options))
