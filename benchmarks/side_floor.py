"""Parts of the floor of a training step, timed as if they were the whole step; see `floor.py`.

    python benchmarks/side_floor.py products tensorflow   # the step's operations as large float32 matrix products
    python benchmarks/side_floor.py products numpy
    python benchmarks/side_floor.py rows tfdlrm           # the step's bytes as random rows of a table as large as all
    python benchmarks/side_floor.py rows numpy

The rows are those of the batches that training cycles through, so that hot rows are as hot as in training. `tfdlrm`
reads them with the native lookup and adds up the rows of each sample; `numpy` copies them with `take`, on one core.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
from measurement import add_timing_arguments, measure
from step_work import step_work
from workload import Workload, add_workload_arguments, workload_from_arguments

PRODUCT_SIZE = 3072  # of square matrices, 58 GFLOP a product: large enough for a machine's best rate


def numpy_products() -> tuple[Callable[[int], float], dict[str, str]]:
    """One product, and the versions of who does it."""
    left, right = np.random.default_rng(0).random((2, PRODUCT_SIZE, PRODUCT_SIZE), np.float32)
    product = np.empty_like(left)

    def multiply(index: int) -> float:
        np.matmul(left, right, out=product)
        return float(product[0, 0])

    return multiply, {"numpy": np.__version__}


def tensorflow_products() -> tuple[Callable[[int], Any], dict[str, str]]:
    """As `numpy_products`."""
    import tensorflow as tf

    left, right = (tf.random.uniform([PRODUCT_SIZE, PRODUCT_SIZE], seed=seed) for seed in (0, 1))
    multiply = tf.function(lambda: tf.matmul(left, right)[0, 0])
    return lambda index: multiply(), {"tensorflow": tf.__version__}


def stacked_ids(workload: Workload) -> list[np.ndarray]:
    """Row numbers [B, ids a row] of each batch in one table that holds the rows of all."""
    starts = np.cumsum([0, *workload.vocabulary_sizes[:-1]])
    return [batch.ids + np.repeat(starts, workload.bag_sizes) for batch in workload.batches()]


def numpy_rows(workload: Workload) -> tuple[Callable[[int], float], dict[str, str]]:
    """Reads the rows of all batches once, and the versions of who does it."""
    table = np.ones((sum(workload.vocabulary_sizes), workload.embedding_dim), np.float32)
    batches = [ids.reshape(-1) for ids in stacked_ids(workload)]
    read = np.empty((len(batches[0]), workload.embedding_dim), np.float32)

    def take(index: int) -> float:
        for ids in batches:
            np.take(table, ids, axis=0, out=read, mode="clip")  # with "raise", NumPy copies twice
        return float(read[0, 0])

    return take, {"numpy": np.__version__}


def tfdlrm_rows(workload: Workload) -> tuple[Callable[[int], Any], dict[str, str]]:
    """As `numpy_rows`."""
    import tensorflow as tf
    from side_tfdlrm import versions

    import tfdlrm
    from tfdlrm.native.scope import native_kernels

    rows = sum(workload.vocabulary_sizes)
    table = tfdlrm.TableConfig(name="all", vocabulary_size=rows, embedding_dim=workload.embedding_dim)
    layer = tfdlrm.EmbeddingCollection(
        [tfdlrm.FeatureConfig(name="ids", table=table, hotness=workload.ids_per_row)], name="rows"
    )
    layer.build()
    ids = tf.constant(np.concatenate(stacked_ids(workload)))

    @tf.function
    def read() -> tf.Tensor:
        with native_kernels():
            return layer({"ids": ids})[0, 0, 0]

    return lambda index: read(), versions()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("products", "rows"))
    parser.add_argument("by", choices=("tensorflow", "tfdlrm", "numpy"))
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    work = step_work(workload)
    if arguments.part == "products":
        step, versions = tensorflow_products() if arguments.by == "tensorflow" else numpy_products()
        steps_per_call = 2 * PRODUCT_SIZE**3 / work.flops
    else:
        step, versions = tfdlrm_rows(workload) if arguments.by == "tfdlrm" else numpy_rows(workload)
        steps_per_call = workload.num_batches * work.read_bytes / work.row_bytes
    measure(
        f"floor-{arguments.part}-{arguments.by}",
        workload,
        step,
        seconds=arguments.seconds,
        versions=versions,
        steps_per_call=steps_per_call,
    )


if __name__ == "__main__":
    main()
