"""ParameterServerConfig: how training over parameter servers goes, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.records import FrozenMapping, Record

MAX_STALENESS = 1024
"""Steps whose pushes a server remembers."""

WireDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ParameterServerConfig(Record):
    """How training over parameter servers goes.

    Args:
        synchronous: every step is one update with the gradients of the whole batch, as on one machine. Otherwise each
            worker goes its own way, a batch at a time.
        max_staleness: asynchronous: no step is begun so many steps after one that is unfinished; 1 to 1024, 1 being
            one step after the other.
        wire_dtype: `float32`, or `bfloat16` for rows and their gradients on the network at half the bytes.
        permute: whether rows of tables that are cut are permuted: True, False, a mapping by table, or None, which
            decides by table.
        min_shard_bytes: tables of fewer bytes a server are not cut.

    Raises:
        ValueError: an option has no meaning; names it.

    Example:
        >>> ParameterServerConfig(synchronous=True).max_staleness
        64
    """

    synchronous: bool = False
    max_staleness: int = 64
    wire_dtype: WireDtype = "float32"
    permute: bool | Mapping[str, bool] | None = None
    min_shard_bytes: int = 2**18

    def __post_init__(self) -> None:
        owner = "ParameterServerConfig"
        checks.check_flag(owner, "synchronous", self.synchronous)
        checks.check_choice(owner, "wire_dtype", self.wire_dtype, get_args(WireDtype))
        if isinstance(self.permute, Mapping):
            for table, asked in self.permute.items():
                checks.check_flag(owner, f"permute[{quoted(table)}]", asked)
            self._set(permute=FrozenMapping(self.permute))
        elif self.permute is not None:
            checks.check_flag(owner, "permute", self.permute)
        max_staleness = checks.check_integer(owner, "max_staleness", self.max_staleness, minimum=1)
        if max_staleness > MAX_STALENESS:
            raise ValueError(
                f"{owner}: max_staleness={max_staleness} is too large: servers remember the last {MAX_STALENESS} "
                f"steps, so that each is applied once. Give 1 to {MAX_STALENESS}."
            )
        self._set(
            max_staleness=max_staleness,
            min_shard_bytes=checks.check_integer(owner, "min_shard_bytes", self.min_shard_bytes, minimum=0),
        )
