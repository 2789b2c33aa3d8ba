"""Frozen, validated configuration: tables, model, training, data, and YAML in and out.

Every class is keyword-only, checked when it is made and never changed afterwards (`dataclasses.replace` makes
another one). `to_dict`/`from_dict` are inverse; unknown keys are refused with the nearest valid one named.
"""

from tfdlrm.config.data import DataConfig, SyntheticConfig
from tfdlrm.config.experiment import ExperimentConfig, apply_overrides, load_config, preset, preset_names
from tfdlrm.config.model import DLRMConfig
from tfdlrm.config.parameter_server import ParameterServerConfig
from tfdlrm.config.sizes import ANY_DATA, sized
from tfdlrm.config.tables import FeatureConfig, MixedDimensionConfig, QuotientRemainderConfig, TableConfig
from tfdlrm.config.train import LearningRateConfig, TrainConfig

__all__ = [
    "ANY_DATA",
    "DLRMConfig",
    "DataConfig",
    "ExperimentConfig",
    "FeatureConfig",
    "LearningRateConfig",
    "MixedDimensionConfig",
    "ParameterServerConfig",
    "QuotientRemainderConfig",
    "SyntheticConfig",
    "TableConfig",
    "TrainConfig",
    "apply_overrides",
    "load_config",
    "preset",
    "preset_names",
    "sized",
]
