"""Preparation: raw files, once, to a format that training reads without parsing."""

from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.data.prepare.raw_sources import avazu_feature_spec
from tfdlrm.data.prepare.run import Listener, PrepareResult, prepare

__all__ = ["Listener", "PrepareConfig", "PrepareResult", "avazu_feature_spec", "prepare"]
