"""Training over several processes under `tf.distribute`.

`parameter_server` is the strategy: tables cut over parameter servers, dense layers copied to the workers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from tfdlrm.distribute.cluster import Cluster
    from tfdlrm.distribute.errors import ServerLostError, WorkersLostError
    from tfdlrm.distribute.local_cluster import LocalCluster
    from tfdlrm.distribute.strategy import ParameterServerStrategy, parameter_server

# Public name -> the module that defines it; imported when it is first used.
_EXPORTS = {
    "Cluster": "tfdlrm.distribute.cluster",
    "LocalCluster": "tfdlrm.distribute.local_cluster",
    "ParameterServerStrategy": "tfdlrm.distribute.strategy",
    "ServerLostError": "tfdlrm.distribute.errors",
    "WorkersLostError": "tfdlrm.distribute.errors",
    "parameter_server": "tfdlrm.distribute.strategy",
}

__all__ = [
    "Cluster",
    "LocalCluster",
    "ParameterServerStrategy",
    "ServerLostError",
    "WorkersLostError",
    "parameter_server",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(
            f"module 'tfdlrm.distribute' has no attribute {quoted(name)}. Public names: {', '.join(__all__)}."
        )
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value  # the next access does not come here
    return value
