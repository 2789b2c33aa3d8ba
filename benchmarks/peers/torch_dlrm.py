"""Peer: the DLRM training step in PyTorch, with one of three ways to hold and update the tables.

fbgemm    FBGEMM's table-batched bags with the fused exact row-wise Adagrad; dense SGD
sgd       26 nn.EmbeddingBag(sparse=True), torch.optim.SGD for all
adagrad   26 nn.EmbeddingBag(sparse=True), torch.optim.Adagrad for the tables; dense SGD
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from measurement import add_timing_arguments, measure
from torch import nn
from workload import LEARNING_RATE, NUM_DENSE, Workload, add_workload_arguments, workload_from_arguments

INITIAL_RANGE = 0.01


def mlp(input_width: int, widths: tuple[int, ...], *, relu_at_end: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        layers.append(nn.Linear(input_width, width))
        if relu_at_end or index < len(widths) - 1:
            layers.append(nn.ReLU())
        input_width = width
    return nn.Sequential(*layers)


class BagTables(nn.Module):
    """One sparse EmbeddingBag a feature; ids are [F, B]."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        dim = workload.embedding_dim
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for rows in workload.vocabulary_sizes
        )
        self.offsets = torch.arange(workload.batch_size)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([bag(ids[k], self.offsets) for k, bag in enumerate(self.bags)], 1)


class FusedTables(nn.Module):
    """FBGEMM's tables: one call for all features, updated in the backward pass; ids are [F, B]."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.shape = (workload.batch_size, workload.num_features, workload.embedding_dim)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [
                (rows, workload.embedding_dim, EmbeddingLocation.HOST, ComputeDevice.CPU)
                for rows in workload.vocabulary_sizes
            ],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=LEARNING_RATE,
        )
        self.tables.init_embedding_weights_uniform(-INITIAL_RANGE, INITIAL_RANGE)
        self.offsets = torch.arange(workload.batch_size * workload.num_features + 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tables(ids.view(-1), self.offsets).view(self.shape)


def build_step(workload: Workload, optimizer: str) -> Callable[[int], torch.Tensor]:
    """A function that trains on batch i and returns the loss."""
    bottom = mlp(NUM_DENSE, workload.bottom_mlp, relu_at_end=True)
    top = mlp(workload.interaction_width, workload.top_mlp, relu_at_end=False)
    dense_parameters = [*bottom.parameters(), *top.parameters()]
    tables: nn.Module
    if optimizer == "fbgemm":
        tables = FusedTables(workload)
        optimizers: list[torch.optim.Optimizer] = [torch.optim.SGD(dense_parameters, LEARNING_RATE)]
    else:
        tables = BagTables(workload)
        if optimizer == "sgd":
            optimizers = [torch.optim.SGD([*dense_parameters, *tables.parameters()], LEARNING_RATE)]
        else:
            optimizers = [
                torch.optim.SGD(dense_parameters, LEARNING_RATE),
                torch.optim.Adagrad(tables.parameters(), LEARNING_RATE),
            ]
    lower_rows, lower_columns = (
        torch.from_numpy(indices) for indices in np.tril_indices(workload.num_features + 1, -1)
    )
    batches = [
        (torch.from_numpy(b.dense), torch.from_numpy(b.ids).t().contiguous(), torch.from_numpy(b.labels))
        for b in workload.batches()
    ]
    loss_function = nn.BCEWithLogitsLoss()

    def step(index: int) -> torch.Tensor:
        dense, ids, labels = batches[index]
        x = bottom(dense)  # [B, D]
        vectors = torch.cat([x[:, None, :], tables(ids)], 1)  # [B, F + 1, D]
        products = torch.bmm(vectors, vectors.transpose(1, 2))  # [B, F + 1, F + 1]
        pairs = products[:, lower_rows, lower_columns]  # [B, P]
        loss = loss_function(top(torch.cat([x, pairs], 1))[:, 0], labels)
        for each in optimizers:
            each.zero_grad()
        loss.backward()
        for each in optimizers:
            each.step()
        return loss.detach()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizer", choices=("fbgemm", "sgd", "adagrad"))
    add_workload_arguments(parser)
    add_timing_arguments(parser)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    versions = {"torch": torch.__version__}
    if arguments.optimizer == "fbgemm":
        import fbgemm_gpu

        versions["fbgemm"] = fbgemm_gpu.__version__
    side = "fbgemm" if arguments.optimizer == "fbgemm" else f"torch-{arguments.optimizer}"
    workload = workload_from_arguments(arguments)
    measure(
        side,
        workload,
        build_step(workload, arguments.optimizer),
        seconds=arguments.seconds,
        versions=versions,
    )


if __name__ == "__main__":
    main()
