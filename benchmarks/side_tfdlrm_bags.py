"""This project's side of the embedding-bag comparison: lookup alone, or lookup, backward pass and update.

    python benchmarks/side_tfdlrm_bags.py rowwise_adagrad --model bags
    TFDLRM_NATIVE=off python benchmarks/side_tfdlrm_bags.py rowwise_adagrad --forward --model bags

What runs is `EmbeddingCollection` inside a `tf.function`, with `record_lookups` where tables are trained. The gradient
of the pooled vectors is given, the same random numbers in every step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import side_tfdlrm
import tensorflow as tf
from measurement import add_timing_arguments, measure
from side_tfdlrm import ROW_OPTIMIZERS
from workload import Workload, add_workload_arguments, workload_from_arguments

import tfdlrm
from tfdlrm.embeddings.recording import record_lookups
from tfdlrm.native.scope import native_kernels


def build_step(workload: Workload, optimizer: str, *, forward: bool) -> Callable[[int], tf.Tensor]:
    """A function that runs batch i and returns one of the pooled numbers."""
    bags = tfdlrm.EmbeddingCollection(side_tfdlrm.features_of(workload), optimizer=ROW_OPTIMIZERS[optimizer]())
    bags.build()
    batches = [side_tfdlrm.feature_ids(workload, batch.ids) for batch in workload.batches()]
    shape = [workload.batch_size, workload.num_features, workload.embedding_dim]
    gradient = tf.random.normal(shape, seed=0)

    @tf.function
    def lookup(ids: dict[str, tf.Tensor]) -> tf.Tensor:
        with native_kernels():
            return bags(ids)[0, 0, 0]

    @tf.function
    def train(ids: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape, record_lookups(tape) as recorder:
            vectors = bags(ids, training=True)  # [B, F, D]
        pooled = tape.gradient(vectors, recorder.leaves, output_gradients=gradient)
        recorder.update(pooled, learning_rate=workload.learning_rate)
        return vectors[0, 0, 0]

    run = lookup if forward else train
    return lambda index: run(batches[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizer", choices=tuple(ROW_OPTIMIZERS))
    parser.add_argument("--forward", action="store_true", help="the lookup alone")
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    workload = workload_from_arguments(arguments)
    measure(
        f"tfdlrm-{arguments.optimizer}",
        workload,
        build_step(workload, arguments.optimizer, forward=arguments.forward),
        seconds=arguments.seconds,
        versions=side_tfdlrm.versions(),
    )


if __name__ == "__main__":
    main()
