"""From other libraries' objects and files to tfdlrm's. So far: `tf.tpu.experimental.embedding` configs."""

from tfdlrm.interop.tpu_embedding_config import from_tpu_feature_config

__all__ = ["from_tpu_feature_config"]
