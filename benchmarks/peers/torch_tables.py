"""Embedding tables in PyTorch, in two ways: one nn.EmbeddingBag a table, or FBGEMM's table-batched bags.

Both take a batch's ids once through `prepared`, so that no step pays for turning them round, and give [B, F, D].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from workload import Workload

INITIAL_RANGE = 0.01


def ids_by_feature(workload: Workload, ids: np.ndarray) -> list[torch.Tensor]:
    """Ids [B, ids a row] as one flat tensor a feature, bag after bag."""
    return [torch.from_numpy(np.ascontiguousarray(ids[:, columns]).reshape(-1)) for columns in workload.id_columns]


class BagTables(nn.Module):
    """One sparse EmbeddingBag a feature."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload = workload
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(
                rows,
                workload.embedding_dim,
                mode="sum",
                sparse=True,
                _weight=torch.empty(rows, workload.embedding_dim).uniform_(-INITIAL_RANGE, INITIAL_RANGE),
            )
            for rows in workload.vocabulary_sizes
        )
        self.offsets = [torch.arange(0, workload.batch_size * size, size) for size in workload.bag_sizes]

    def prepared(self, ids: np.ndarray) -> list[torch.Tensor]:
        """What `forward` takes, of ids [B, ids a row]."""
        return ids_by_feature(self.workload, ids)

    def pooled(self, ids: list[torch.Tensor]) -> list[torch.Tensor]:
        """One [B, D] a feature."""
        return [bag(one, start) for bag, one, start in zip(self.bags, ids, self.offsets, strict=True)]

    def forward(self, ids: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(self.pooled(ids), 1)


class FusedTables(nn.Module):
    """FBGEMM's tables: one call for all features, updated by exact row-wise Adagrad in the backward pass."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.workload = workload
        self.shape = (workload.batch_size, workload.num_features, workload.embedding_dim)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [
                (rows, workload.embedding_dim, EmbeddingLocation.HOST, ComputeDevice.CPU)
                for rows in workload.vocabulary_sizes
            ],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=workload.learning_rate,
        )
        self.tables.init_embedding_weights_uniform(-INITIAL_RANGE, INITIAL_RANGE)
        sizes = torch.tensor([0, *np.repeat(workload.bag_sizes, workload.batch_size)])
        self.offsets = torch.cumsum(sizes, 0)

    def prepared(self, ids: np.ndarray) -> torch.Tensor:
        """What `forward` takes, of ids [B, ids a row]."""
        return torch.cat(ids_by_feature(self.workload, ids))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tables(ids, self.offsets).view(self.shape)
