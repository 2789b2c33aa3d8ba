"""tfdlrm: deep learning recommendation models (DLRM) for TensorFlow and Keras 3.

The public names below are imported when they are first used (PEP 562), so that `import tfdlrm` is quick and a
config can be read without TensorFlow's start-up.

Example:
    >>> import tfdlrm
    >>> tfdlrm.FeatureSpec(labels=("click",)).label
    'click'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from tfdlrm import distribute, layers, losses, metrics
    from tfdlrm.config import (
        DataConfig,
        DLRMConfig,
        ExperimentConfig,
        FeatureConfig,
        LearningRateConfig,
        MixedDimensionConfig,
        ParameterServerConfig,
        QuotientRemainderConfig,
        SyntheticConfig,
        TableConfig,
        TrainConfig,
        load_config,
        preset,
        preset_names,
    )
    from tfdlrm.embeddings import optimizers
    from tfdlrm.layers import EmbeddingCollection
    from tfdlrm.models.base import Model
    from tfdlrm.models.dcnv2 import DLRMDCNv2
    from tfdlrm.models.dlrm import DLRM
    from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells
    from tfdlrm.training.frames import TrainedModel, fit, load

__version__ = "0.1.0.dev0"

# Public name -> (module, attribute); attribute "" is the module itself.
_EXPORTS: dict[str, tuple[str, str]] = {
    "CategoricalColumn": ("tfdlrm.schema", "CategoricalColumn"),
    "DLRM": ("tfdlrm.models.dlrm", "DLRM"),
    "DLRMConfig": ("tfdlrm.config", "DLRMConfig"),
    "DLRMDCNv2": ("tfdlrm.models.dcnv2", "DLRMDCNv2"),
    "DataConfig": ("tfdlrm.config", "DataConfig"),
    "DenseColumn": ("tfdlrm.schema", "DenseColumn"),
    "EmbeddingCollection": ("tfdlrm.layers", "EmbeddingCollection"),
    "ExperimentConfig": ("tfdlrm.config", "ExperimentConfig"),
    "FeatureConfig": ("tfdlrm.config", "FeatureConfig"),
    "FeatureSpec": ("tfdlrm.schema", "FeatureSpec"),
    "LearningRateConfig": ("tfdlrm.config", "LearningRateConfig"),
    "ParameterServerConfig": ("tfdlrm.config", "ParameterServerConfig"),
    "MixedDimensionConfig": ("tfdlrm.config", "MixedDimensionConfig"),
    "Model": ("tfdlrm.models.base", "Model"),
    "QuotientRemainderConfig": ("tfdlrm.config", "QuotientRemainderConfig"),
    "RawCells": ("tfdlrm.schema", "RawCells"),
    "SyntheticConfig": ("tfdlrm.config", "SyntheticConfig"),
    "TableConfig": ("tfdlrm.config", "TableConfig"),
    "TrainConfig": ("tfdlrm.config", "TrainConfig"),
    "TrainedModel": ("tfdlrm.training.frames", "TrainedModel"),
    "distribute": ("tfdlrm.distribute", ""),
    "fit": ("tfdlrm.training.frames", "fit"),
    "layers": ("tfdlrm.layers", ""),
    "load": ("tfdlrm.training.frames", "load"),
    "load_config": ("tfdlrm.config", "load_config"),
    "losses": ("tfdlrm.losses", ""),
    "metrics": ("tfdlrm.metrics", ""),
    "optimizers": ("tfdlrm.embeddings.optimizers", ""),
    "preset": ("tfdlrm.config", "preset"),
    "preset_names": ("tfdlrm.config", "preset_names"),
}

__all__ = [
    "DLRM",
    "CategoricalColumn",
    "DLRMConfig",
    "DLRMDCNv2",
    "DataConfig",
    "DenseColumn",
    "EmbeddingCollection",
    "ExperimentConfig",
    "FeatureConfig",
    "FeatureSpec",
    "LearningRateConfig",
    "MixedDimensionConfig",
    "Model",
    "ParameterServerConfig",
    "QuotientRemainderConfig",
    "RawCells",
    "SyntheticConfig",
    "TableConfig",
    "TrainConfig",
    "TrainedModel",
    "__version__",
    "distribute",
    "fit",
    "layers",
    "load",
    "load_config",
    "losses",
    "metrics",
    "optimizers",
    "preset",
    "preset_names",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(
            f"module 'tfdlrm' has no attribute {quoted(name)}. Public names: {', '.join(sorted(_EXPORTS))}."
        )
    module_name, attribute = _EXPORTS[name]
    module = import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_EXPORTS))
