"""The report of a serving sitting: tables, ratios and targets. Pure computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comparison import DISTURBED_SHARE
from serving_calls import CallTimes
from serving_load import TARGET_LATENCY_SECONDS
from sides import Absence
from targets import Target

RANK, PREDICT = "tfdlrm-rank", "tfdlrm-predict"
SERVERS = ("tfdlrm-server-rank", "tfdlrm-server-predict")  # whose work is done by another process
PEERS = ("torchscript", "onnxruntime")
CANDIDATES = 500
RANK_RATIO = 1.5  # times the peer's rate, for the same candidates as full rows
PREDICT_RATIO = 0.9
BATCH_1_MILLISECONDS = 0.5

Times = Mapping[str, Mapping[int, CallTimes]]
"""Side -> rows a call -> medians over the rounds."""


def is_own(side: str) -> bool:
    """Whether a side is this project's."""
    return side.startswith("tfdlrm")


def calls_table(times: Times, rows: int) -> list[str]:
    """The calls of so many rows."""
    lines = [
        f"### {rows} row{'s' if rows > 1 else ''} a call, one call after another",
        "",
        "| side | p50 ms | p90 ms | p99 ms | rows/s at p50 | calls | others' CPU |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for side, found in times.items():
        if rows in found:
            each = found[rows]
            lines.append(
                f"| {side} | {each.p50 * 1e3:.3f} | {each.p90 * 1e3:.3f} | {each.p99 * 1e3:.3f} | "
                f"{each.rows_per_second:,.0f} | {each.calls:,} | {each.others_share:.0%} |"
            )
    return lines


def ratios_table(times: Times, rows: int) -> list[str]:
    """Rate of this project's sides over that of the others, by medians."""
    here = {side: found[rows] for side, found in times.items() if rows in found}
    own = [side for side in here if is_own(side)]
    peers = [side for side in here if not is_own(side)]
    if not own or not peers:
        return []
    lines = ["", "Ratio of medians, this project's rate over the other's:", ""]
    lines += ["| other | " + " | ".join(own) + " |", "|---|" + "--:|" * len(own)]
    for peer in peers:
        cells = [
            "disturbed" if _spoiled(here, (peer, side)) else f"{here[peer].p50 / here[side].p50:.2f}×" for side in own
        ]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return lines


def load_table(loads: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What LoadGen found for each side."""
    if not loads:
        return []
    first = next(iter(loads.values()))
    lines = [
        f"### Load driven by MLPerf LoadGen, {first['pairs_per_query']:.0f} pairs a query on average",
        "",
        "| side | Server: queries/s held | pairs/s | p50 ms | p99 ms | others' CPU | probes "
        "| Offline: queries/s | pairs/s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for side, load in loads.items():
        server, offline, pairs = load["server"], load["offline"], load["pairs_per_query"]
        held = (
            f"{server['target_qps']:,.0f} | {server['target_qps'] * pairs:,.0f} | {server['p50'] * 1e3:.1f} "
            f"| {server['p99'] * 1e3:.1f} | {_others(side, server)}"
            if server
            else "none | | | |"
        )
        rate = offline["queries_per_second"]
        lines.append(f"| {side} | {held} | {len(load['probes'])} | {rate:,.0f} | {rate * pairs:,.0f} |")
    return lines + _held_ratios(loads)


def _held_ratios(loads: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rates that this project's sides hold over those that the others hold."""
    held = {side: load["server"] for side, load in loads.items() if load["server"]}
    found = [
        f"- {own} over {peer}: "
        + (
            "disturbed"
            if _disturbed_run(own, held[own]) or _disturbed_run(peer, held[peer])
            else f"{held[own]['target_qps'] / held[peer]['target_qps']:.2f}×"
        )
        for own in held
        for peer in held
        if is_own(own) and not is_own(peer)
    ]
    return ["", "Ratio of the rates held:", "", *found] if found else []


def _disturbed_run(side: str, run: Mapping[str, Any]) -> bool:
    return side not in SERVERS and run["others_share"] > DISTURBED_SHARE


def targets(times: Times, loads: Mapping[str, Mapping[str, Any]], absences: Sequence[Absence]) -> list[Target]:
    """All that is aimed at, judged where the sides ran undisturbed."""
    judged = [
        _ratio(f"{own} of {CANDIDATES} over {peer}", times, absences, own, peer, at_least)
        for own, at_least in ((RANK, RANK_RATIO), (PREDICT, PREDICT_RATIO))
        for peer in (PEERS if own == RANK else PEERS[:1])
    ]
    one = times.get(PREDICT, {}).get(1)
    judged.append(
        Target(
            name=f"{PREDICT} of one row, p50",
            value=one.p50 * 1e3 if one else None,
            at_most=BATCH_1_MILLISECONDS,
            unit=" ms",
            unknown_because=_unknown(times, absences, (PREDICT,), 1),
        )
    )
    for side in (RANK, *SERVERS):
        if side in loads:
            server = loads[side]["server"]
            rate = f" at {server['target_qps']:,.0f} queries/s" if server else ""
            judged.append(
                Target(
                    name=f"{side}, LoadGen Server p99{rate}",
                    value=server["p99"] * 1e3 if server else None,
                    at_most=TARGET_LATENCY_SECONDS * 1e3,
                    unit=" ms",
                    unknown_because="no rate was held"
                    if not server
                    else f"{side} disturbed"
                    if _disturbed_run(side, server)
                    else "",
                )
            )
    return judged


def _others(side: str, run: Mapping[str, Any]) -> str:
    return "" if side in SERVERS else f"{run['others_share']:.0%}"


def _ratio(name: str, times: Times, absences: Sequence[Absence], own: str, peer: str, at_least: float) -> Target:
    found = [times.get(side, {}).get(CANDIDATES) for side in (own, peer)]
    value = found[1].p50 / found[0].p50 if found[0] and found[1] else None
    return Target(
        name=name,
        value=value,
        at_least=at_least,
        unknown_because=_unknown(times, absences, (own, peer), CANDIDATES),
    )


def _unknown(times: Times, absences: Sequence[Absence], sides: Sequence[str], rows: int) -> str:
    reasons = [f"{each.side}: {each.reason.splitlines()[0]}" for each in absences if each.side in sides]
    here = {side: times[side][rows] for side in sides if rows in times.get(side, {})}
    spoiled = _spoiled(here, tuple(here))
    return "; ".join([*reasons, *([f"{', '.join(spoiled)} disturbed"] if spoiled else [])])


def _spoiled(times: Mapping[str, CallTimes], sides: Sequence[str]) -> list[str]:
    return [side for side in sides if side not in SERVERS and times[side].others_share > DISTURBED_SHARE]
