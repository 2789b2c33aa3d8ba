"""From stacks to the pieces of them that each parameter server holds, and why.

A stored table is whole on one server, or cut into contiguous ranges, one a server. Cut tables whose ids are likely to
stand in order of frequency, as vocabularies put them, have their rows permuted first: position `(a id + b) mod V`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tfdlrm.checks import quoted
from tfdlrm.config import ParameterServerConfig
from tfdlrm.embeddings import row_types
from tfdlrm.embeddings.initializers import table_seed
from tfdlrm.embeddings.planner import ShardingPlan, Stack, StoredTable

FLOAT_BYTES = 4

ZIPF_EXPONENT = 1.05
"""Of the ids' frequencies, where nothing is known of them: about what the public click logs have."""

CROWDED = 1.5
"""A server that answers this many times its fair share of a table's lookups is crowded."""

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class Permutation:
    """The bijection `position = (factor * id + shift) mod size` of [0, size), and its inverse.

    Products stay below 2^63 for tables of up to 3.0e9 rows.
    """

    size: int
    factor: int = 1
    shift: int = 0

    @property
    def is_identity(self) -> bool:
        return self.factor == 1 and self.shift == 0

    @property
    def inverse_factor(self) -> int:
        return pow(self.factor, -1, self.size) if self.size > 1 else 0

    def positions(self, ids: Any) -> Any:
        """Positions of ids; int64 both, arrays or tensors."""
        return (ids * self.factor + self.shift) % self.size

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Ids at positions; int64 both."""
        return ((positions - self.shift) % self.size) * self.inverse_factor % self.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """Positions `[start, stop)` of one stored table on one server, from row `offset` of the server's array on."""

    table: StoredTable
    table_row: int
    permutation: Permutation
    server: int
    start: int
    stop: int
    offset: int

    @property
    def num_rows(self) -> int:
        return self.stop - self.start


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardedStack:
    """One stack over all servers; `table_row` of a piece is the first row of its table in the stack.

    Args:
        stack: as planned for one process.
        pieces: in order of table, then of position: together they cover every row of the stack once.
        rows: rows each server holds.
    """

    stack: Stack
    pieces: tuple[Piece, ...]
    rows: tuple[int, ...]

    @property
    def first_rows(self) -> tuple[int, ...]:
        """Where each server's rows begin when all servers' rows are counted one server after the other."""
        return tuple(sum(self.rows[:server]) for server in range(len(self.rows)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What every parameter server holds, and why.

    Args:
        stacks: of the plan of one process, each over all servers.
        reasons: a line for each table and stack, and one of the balance.
        server_bytes: of rows, slots and pooling weights on each server.

    Example:
        >>> plan = shard(plan_local(tables), num_servers=2)
        >>> for line in plan.reasons: print(line)
        stack_0: 1 table of width 16 fused, 1000000 rows (no other table shares its width and options)
        item: 1000000 rows cut into 2 ranges, permuted (by frequency one server would answer 96% of its lookups)
        servers hold 34.0 MB, 34.0 MB: the largest 1.00x the mean
    """

    stacks: tuple[ShardedStack, ...]
    reasons: tuple[str, ...]
    server_bytes: tuple[int, ...]

    @property
    def num_servers(self) -> int:
        return len(self.server_bytes)


def shard(
    plan: ShardingPlan,
    num_servers: int,
    *,
    seed: int = 0,
    min_shard_bytes: int = ParameterServerConfig.min_shard_bytes,
    permute: bool | dict[str, bool] | None = None,
) -> ShardPlan:
    """Cuts the tables of a plan over servers.

    Args:
        plan: of one process; stacks stay as they are, so ids of a stack mean the same.
        num_servers: parameter servers.
        seed: of the permutations.
        min_shard_bytes: tables of fewer bytes a server stay whole, on the server that holds the least: asking
            one server is cheaper than asking all.
        permute: None decides a table; True or False for all; or by table name.

    Raises:
        ValueError: a name in `permute` is no table.
    """
    tables = [table for stack in plan.stacks for table in stack.tables]
    _refuse_unknown(permute, [table.name for table in tables])
    why_whole = {table.name: _why_whole(table, num_servers, min_shard_bytes) for table in tables}
    servers = _servers_of_whole_tables([table for table in tables if why_whole[table.name]], num_servers)
    reasons = []
    used = [[0] * num_servers for _ in plan.stacks]
    loads = [0] * num_servers
    pieces: list[list[Piece]] = [[] for _ in plan.stacks]
    for index, stack in enumerate(plan.stacks):
        for table, first in zip(stack.tables, stack.offsets, strict=True):
            permutation = Permutation(table.vocabulary_size)
            if table.name in servers:
                server = servers[table.name]
                reasons.append(
                    f"{table.name}: {table.vocabulary_size} rows whole on server {server}, {why_whole[table.name]}"
                )
                ranges = [(server, 0, table.vocabulary_size)]
            else:
                permutation, reason = _permutation(table, num_servers, seed, permute)
                reasons.append(f"{table.name}: {table.vocabulary_size} rows cut into {num_servers} ranges, {reason}")
                bounds = [table.vocabulary_size * server // num_servers for server in range(num_servers + 1)]
                ranges = [(server, bounds[server], bounds[server + 1]) for server in range(num_servers)]
            for server, start, stop in ranges:
                pieces[index].append(
                    Piece(
                        table=table,
                        table_row=first,
                        permutation=permutation,
                        server=server,
                        start=start,
                        stop=stop,
                        offset=used[index][server],
                    )
                )
                used[index][server] += stop - start
                loads[server] += (stop - start) * row_bytes(table)
    mean = sum(loads) / num_servers
    reasons.append(f"servers hold {', '.join(map(bytes_text, loads))}: the largest {max(loads) / mean:.2f}x the mean")
    stacks = tuple(
        ShardedStack(stack=stack, pieces=tuple(pieces[index]), rows=tuple(used[index]))
        for index, stack in enumerate(plan.stacks)
    )
    return ShardPlan(stacks=stacks, reasons=(*plan.reasons, *reasons), server_bytes=tuple(loads))


def row_bytes(table: StoredTable) -> int:
    """Bytes a row of a table takes on its server: the row, its optimizer's slots and its pooling weight."""
    slots = table.optimizer.slots() if table.trainable else ()
    total = row_types.row_bytes(table.row_dtype, table.embedding_dim)
    total += sum(FLOAT_BYTES * (slot.width or table.embedding_dim) for slot in slots)
    if table.pooling_weights is not None:
        total += FLOAT_BYTES * (1 + (len(slots) if table.pooling_weights == "learned" else 0))
    return total


def _servers_of_whole_tables(tables: list[StoredTable], num_servers: int) -> dict[str, int]:
    """Table -> server: the largest first, each to the one that holds the least so far; cut tables burden all alike."""
    loads = [0] * num_servers
    servers = {}
    for table in sorted(tables, key=lambda table: -table.vocabulary_size * row_bytes(table)):
        server = loads.index(min(loads))
        servers[table.name] = server
        loads[server] += table.vocabulary_size * row_bytes(table)
    return servers


def bytes_text(num_bytes: int) -> str:
    """Bytes as people read them: `34.0 MB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"


def _refuse_unknown(permute: bool | dict[str, bool] | None, names: list[str]) -> None:
    unknown = sorted(set(permute) - set(names)) if isinstance(permute, dict) else []
    if unknown:
        raise ValueError(
            f"permute={quoted(permute)}: {unknown} are no stored tables. There are: {', '.join(sorted(names))}."
        )


def _why_whole(table: StoredTable, num_servers: int, min_shard_bytes: int) -> str | None:
    """None for a table that is cut; else why not."""
    if num_servers == 1:
        return "the only one"
    if table.optimizer.clipnorm is not None:
        return f"because its clipnorm={table.optimizer.clipnorm} is of the whole table's gradient"
    if table.vocabulary_size < num_servers:
        return "which are fewer than the servers"
    if table.vocabulary_size * row_bytes(table) < min_shard_bytes * num_servers:
        return f"because a part of it would have less than {bytes_text(min_shard_bytes)}"
    return None


def _permutation(
    table: StoredTable, num_servers: int, seed: int, permute: bool | dict[str, bool] | None
) -> tuple[Permutation, str]:
    identity = Permutation(table.vocabulary_size)
    asked = permute.get(table.name) if isinstance(permute, dict) else permute
    share = _first_range_share(table.vocabulary_size, num_servers)
    if asked is False:
        return identity, "in order of their ids (permute=False)"
    if asked is None and share * num_servers < CROWDED:
        return identity, f"in order of their ids (by frequency one server answers {share:.0%} of its lookups)"
    size = table.vocabulary_size
    key = table_seed(seed, f"{table.name}/permutation")
    factor = round(_GOLDEN * size) + key % max(1, size // 64)
    while math.gcd(factor, size) != 1:
        factor += 1
    why = "permute=True" if asked else f"by frequency one server would answer {share:.0%} of its lookups"
    return Permutation(size, factor % size, (key >> 20) % size), f"permuted ({why})"


def _first_range_share(num_rows: int, num_servers: int) -> float:
    """Share of the lookups that the first of equal ranges answers, ids in order of a power law's frequencies."""

    def mass(rows: int) -> float:
        # of 1 / (k + 1)^s: the first rows exactly, the rest as an integral
        head = min(rows, 1000)
        power = 1 - ZIPF_EXPONENT
        tail = ((rows + 0.5) ** power - (head + 0.5) ** power) / power if rows > head else 0.0
        return float(np.sum(1.0 / np.arange(1, head + 1) ** ZIPF_EXPONENT)) + tail

    return mass(max(1, num_rows // num_servers)) / mass(num_rows)
