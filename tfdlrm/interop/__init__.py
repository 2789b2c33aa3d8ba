"""From other libraries' objects and layouts to tfdlrm's, a module each."""

from tfdlrm.interop.tpu_embedding_config import from_tpu_feature_config

__all__ = ["from_tpu_feature_config"]
