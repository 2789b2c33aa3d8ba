"""Preparation: raw files, once, to a format that training reads without parsing."""

from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.run import Listener, PrepareResult, prepare, uses_tensorflow
from tfdlrm.data.raw_formats import avazu_feature_spec

__all__ = ["Listener", "PrepareConfig", "PrepareResult", "avazu_feature_spec", "prepare", "uses_tensorflow"]
