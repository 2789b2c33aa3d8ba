"""Peer: embedding bags alone in PyTorch, the lookup (`--forward`) or lookup, backward pass and update.

fbgemm    FBGEMM's table-batched bags with the fused exact row-wise Adagrad
torch     one nn.EmbeddingBag(sparse=True) a table; torch.optim.SGD

The gradient of the pooled vectors is given, the same random numbers in every step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measurement import add_timing_arguments, measure
from torch_tables import BagTables, FusedTables
from workload import Workload, add_workload_arguments, workload_from_arguments


def build_fbgemm(workload: Workload, *, forward: bool) -> Callable[[int], torch.Tensor]:
    """A function that runs batch i on FBGEMM's tables and returns one of the pooled numbers."""
    tables = FusedTables(workload)
    batches = [tables.prepared(batch.ids) for batch in workload.batches()]
    gradient = torch.randn(tables.shape)

    def lookup(index: int) -> torch.Tensor:
        with torch.no_grad():
            return tables(batches[index])[0, 0, 0]

    def train(index: int) -> torch.Tensor:
        pooled = tables(batches[index])
        pooled.backward(gradient)
        return pooled[0, 0, 0].detach()

    return lookup if forward else train


def build_torch(workload: Workload, *, forward: bool) -> Callable[[int], torch.Tensor]:
    """As `build_fbgemm`, with one EmbeddingBag a table; vectors are left one a table, which is cheapest."""
    tables = BagTables(workload)
    optimizer = torch.optim.SGD(tables.parameters(), workload.learning_rate)
    batches = [tables.prepared(batch.ids) for batch in workload.batches()]
    gradient = torch.randn(workload.batch_size, workload.embedding_dim)

    def lookup(index: int) -> torch.Tensor:
        with torch.no_grad():
            return tables.pooled(batches[index])[-1][0, 0]

    def train(index: int) -> torch.Tensor:
        pooled = tables.pooled(batches[index])
        torch.autograd.backward(pooled, [gradient] * len(pooled))
        optimizer.step()
        optimizer.zero_grad()
        return pooled[-1][0, 0].detach()

    return lookup if forward else train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("fbgemm", "torch"))
    parser.add_argument("--forward", action="store_true", help="the lookup alone")
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    versions = {"torch": torch.__version__}
    if arguments.library == "fbgemm":
        import fbgemm_gpu

        versions["fbgemm"] = fbgemm_gpu.__version__
    workload = workload_from_arguments(arguments)
    build = build_fbgemm if arguments.library == "fbgemm" else build_torch
    step = build(workload, forward=arguments.forward)
    measure(arguments.library, workload, step, seconds=arguments.seconds, versions=versions)


if __name__ == "__main__":
    main()
