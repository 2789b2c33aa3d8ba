"""Models: `Model` (a `keras.Model` that owns its tape), `DLRM`, `DLRMDCNv2`."""

from tfdlrm.models.base import Model
from tfdlrm.models.dcnv2 import DLRMDCNv2
from tfdlrm.models.dlrm import DLRM

__all__ = ["DLRM", "DLRMDCNv2", "Model"]
