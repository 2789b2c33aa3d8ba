"""Peers: the served DLRM in PyTorch eager, as TorchScript, and exported to ONNX and run by ONNX Runtime.

All have the weights that serving_export.py wrote, score full rows, and take ids as one tensor [26, N], a table's ids
side by side, which suits them best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from serving_requests import Query
from serving_side import WEIGHTS_FILE, MakeCall, run_side
from torch import nn

EXAMPLE_ROWS = 500
ONNX_FILE = "model.onnx"
# What ONNX Runtime is given and gives.
INPUTS, OUTPUT = ("dense", "ids"), "probability"


class ServedDLRM(nn.Module):
    """dense [N, 13] float32 and ids [26, N] int64 -> probabilities [N, 1]."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        count = sum(name.startswith("table_") for name in weights)
        self.tables = nn.ModuleList(
            nn.Embedding.from_pretrained(torch.from_numpy(weights[f"table_{k}"])) for k in range(count)
        )
        self.bottom = _mlp(weights, "bottom", relu_at_end=True)
        self.top = _mlp(weights, "top", relu_at_end=False)
        i, j = np.tril_indices(count + 1, -1)
        # [i, j] of each pair in the flattened products
        self.register_buffer("pairs", torch.from_numpy(i * (count + 1) + j), persistent=False)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        x = self.bottom(dense)
        vectors = [x, *(table(ids[k]) for k, table in enumerate(self.tables))]
        stacked = torch.stack(vectors, 1)  # [N, 27, D]
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
        return torch.sigmoid(self.top(torch.cat([x, products[:, self.pairs]], 1)))


def _mlp(weights: Mapping[str, np.ndarray], name: str, *, relu_at_end: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    count = sum(key.startswith(f"{name}_kernel_") for key in weights)
    for index in range(count):
        kernel, bias = weights[f"{name}_kernel_{index}"], weights[f"{name}_bias_{index}"]
        layer = nn.Linear(*kernel.shape)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.T))
        layer.bias.data = torch.from_numpy(bias)
        layers.append(layer)
        if relu_at_end or index < count - 1:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _load(folder: Path) -> ServedDLRM:
    with np.load(folder / WEIGHTS_FILE) as weights:
        return ServedDLRM(dict(weights)).eval()


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(EXAMPLE_ROWS, 13), torch.zeros(26, EXAMPLE_ROWS, dtype=torch.int64)


def _arrays(query: Query) -> tuple[np.ndarray, np.ndarray]:
    return query.dense, np.ascontiguousarray(query.ids.T)


def _torch_calls(model: Callable[..., torch.Tensor], threads: int) -> MakeCall:
    torch.set_num_threads(threads)

    def make_call(query: Query) -> Callable[[], np.ndarray]:
        dense, ids = map(torch.from_numpy, _arrays(query))

        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(dense, ids).numpy()

        return call

    return make_call


def eager(folder: Path, threads: int) -> tuple[MakeCall, Mapping[str, str]]:
    """The module as it is."""
    return _torch_calls(_load(folder), threads), {"torch": torch.__version__}


def torchscript(folder: Path, threads: int) -> tuple[MakeCall, Mapping[str, str]]:
    """Traced, frozen and optimized for inference."""
    torch.set_num_threads(threads)
    with torch.no_grad():
        traced = torch.jit.trace(_load(folder), _example())
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return _torch_calls(frozen, threads), {"torch": torch.__version__}


def onnxruntime(folder: Path, threads: int) -> tuple[MakeCall, Mapping[str, str]]:
    """Exported by torch.onnx, run by ONNX Runtime with all its optimizations."""
    import onnxruntime as runtime

    path = folder / ONNX_FILE
    if not path.exists():
        rows = torch.export.Dim("rows")
        torch.onnx.export(
            _load(folder),
            _example(),
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=({0: rows}, {1: rows}),
            external_data=True,
            dynamo=True,
            verbose=False,
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def make_call(query: Query) -> Callable[[], np.ndarray]:
        feed = dict(zip(INPUTS, _arrays(query), strict=True))
        return lambda: session.run([OUTPUT], feed)[0]

    return make_call, {"onnxruntime": runtime.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    run_side(__doc__, {"torch-eager": eager, "torchscript": torchscript, "onnxruntime": onnxruntime})
