"""Peer: the training step of DLRM or DLRM-DCNv2 in PyTorch, with one of three ways to hold and update the tables.

fbgemm    FBGEMM's table-batched bags with the fused exact row-wise Adagrad; dense SGD
sgd       one nn.EmbeddingBag(sparse=True) a table, torch.optim.SGD for all
adagrad   one nn.EmbeddingBag(sparse=True) a table, torch.optim.Adagrad for the tables; dense SGD
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from measurement import add_timing_arguments, measure
from torch import nn
from torch_tables import BagTables, FusedTables
from workload import (
    CROSS_LAYERS,
    CROSS_RANK,
    NUM_DENSE,
    Workload,
    add_workload_arguments,
    workload_from_arguments,
)


def mlp(input_width: int, widths: tuple[int, ...], *, relu_at_end: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, width in enumerate(widths):
        layers.append(nn.Linear(input_width, width))
        if relu_at_end or index < len(widths) - 1:
            layers.append(nn.ReLU())
        input_width = width
    return nn.Sequential(*layers)


class DotInteraction(nn.Module):
    """x [B, D] beside the products of all pairs of x and the vectors [B, F, D]: [B, D + P]."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        pairs = np.tril_indices(workload.num_features + 1, -1)
        self.rows, self.columns = (torch.from_numpy(indices) for indices in pairs)

    def forward(self, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        stacked = torch.cat([x[:, None, :], vectors], 1)  # [B, F + 1, D]
        products = torch.bmm(stacked, stacked.transpose(1, 2))  # [B, F + 1, F + 1]
        return torch.cat([x, products[:, self.rows, self.columns]], 1)


class CrossInteraction(nn.Module):
    """Low-rank cross layers over x and all vectors side by side, N = (F + 1) D: x0 * ((x V) W + b) + x, [B, N]."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        width = workload.interaction_width
        self.down = nn.ModuleList(nn.Linear(width, CROSS_RANK, bias=False) for _ in range(CROSS_LAYERS))
        self.up = nn.ModuleList(nn.Linear(CROSS_RANK, width) for _ in range(CROSS_LAYERS))

    def forward(self, x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        first = crossed = torch.cat([x, vectors.flatten(1)], 1)
        for down, up in zip(self.down, self.up, strict=True):
            crossed = first * up(down(crossed)) + crossed
        return crossed


def build_step(workload: Workload, optimizer: str) -> Callable[[int], torch.Tensor]:
    """A function that trains on batch i and returns the loss."""
    bottom = mlp(NUM_DENSE, workload.bottom_mlp, relu_at_end=True)
    interaction = CrossInteraction(workload) if workload.model == "dcnv2" else DotInteraction(workload)
    top = mlp(workload.interaction_width, workload.top_mlp, relu_at_end=False)
    dense_parameters = [*bottom.parameters(), *interaction.parameters(), *top.parameters()]
    rate = workload.learning_rate
    tables: BagTables | FusedTables
    if optimizer == "fbgemm":
        tables = FusedTables(workload)
        optimizers: list[torch.optim.Optimizer] = [torch.optim.SGD(dense_parameters, rate)]
    else:
        tables = BagTables(workload)
        if optimizer == "sgd":
            optimizers = [torch.optim.SGD([*dense_parameters, *tables.parameters()], rate)]
        else:
            optimizers = [torch.optim.SGD(dense_parameters, rate), torch.optim.Adagrad(tables.parameters(), rate)]
    batches = [
        (torch.from_numpy(b.dense), tables.prepared(b.ids), torch.from_numpy(b.labels)) for b in workload.batches()
    ]
    loss_function = nn.BCEWithLogitsLoss()

    def step(index: int) -> torch.Tensor:
        dense, ids, labels = batches[index]
        x = bottom(dense)  # [B, D]
        logits = top(interaction(x, tables(ids)))[:, 0]
        loss = loss_function(logits, labels)
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
