"""TFX, or an error that names the extra. Only modules of this package import this one."""

try:
    import ml_metadata as mlmd
    import tensorflow_data_validation as tfdv
    import tensorflow_model_analysis as tfma
    import tensorflow_transform as tft
    from tfx import v1 as tfx
except ImportError as error:
    raise ImportError(
        "Pipelines need TFX 1.21, whose wheels need glibc 2.39. Install it: pip install 'tfdlrm[tfx]'; on an older "
        "system make an environment for it by 'make tfx-env' in a checkout."
    ) from error

__all__ = ["mlmd", "tfdv", "tfma", "tft", "tfx"]
