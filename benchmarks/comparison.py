"""Medians, ratios and the table of one sitting. Pure computation: no clock, no processes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measurement import SideResult
from sides import SIDES, Absence
from targets import Target

MIB = 2**20
# Above this share of CPU time for other processes a comparison is not worth quoting; the kernel's own
# threads stay below.
DISTURBED_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class SideSummary:
    """All rounds of one side at one batch size.

    Args:
        side: Key of `sides.SIDES`.
        batch_size: Rows a step.
        round_seconds: Median step time of each round, in the order they were run.
        best_seconds: Shortest chunk of all rounds.
        peak_bytes: Largest resident size of any round.
        versions: Of the packages that did the work.
        others_share: Largest share of CPU time that other processes took in any round.
    """

    side: str
    batch_size: int
    round_seconds: tuple[float, ...]
    best_seconds: float
    peak_bytes: int
    versions: Mapping[str, str]
    others_share: float = 0.0

    @property
    def median_seconds(self) -> float:
        """Median of the rounds' medians: a round on a busy machine does not move it."""
        return statistics.median(self.round_seconds)

    @property
    def median_samples_per_second(self) -> float:
        return self.batch_size / self.median_seconds

    @property
    def best_samples_per_second(self) -> float:
        return self.batch_size / self.best_seconds

    def to_dict(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "batch_size": self.batch_size,
            "round_seconds": list(self.round_seconds),
            "median_samples_per_second": self.median_samples_per_second,
            "best_samples_per_second": self.best_samples_per_second,
            "peak_bytes": self.peak_bytes,
            "versions": dict(self.versions),
            "others_share": self.others_share,
        }


def summarize_side(results: Sequence[SideResult]) -> SideSummary:
    """Joins the rounds of one side.

    Raises:
        ValueError: No rounds, or rounds of different sides or workloads.
    """
    if not results:
        raise ValueError("summarize_side: no results to summarize")
    first = results[0]
    for result in results[1:]:
        if result.side != first.side or result.workload != first.workload:
            raise ValueError(
                f"summarize_side: {result.side!r} on {result.workload} is not a round of "
                f"{first.side!r} on {first.workload}"
            )
    batch_size = first.workload["batch_size"]
    assert batch_size is not None
    return SideSummary(
        side=first.side,
        batch_size=batch_size,
        round_seconds=tuple(result.median_seconds for result in results),
        best_seconds=min(result.best_seconds for result in results),
        peak_bytes=max(result.peak_bytes for result in results),
        versions=dict(first.versions),
        others_share=max(result.others_share for result in results),
    )


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """All sides on one workload, measured in turn.

    Args:
        workload: `Workload.to_dict()`.
        summaries: Sides that ran, in the order of the run.
        absences: Sides that did not, and why.
        title: What was timed, where it is not the training step.
    """

    workload: Mapping[str, int | None]
    summaries: tuple[SideSummary, ...]
    absences: tuple[Absence, ...]
    title: str = ""

    @property
    def disturbed(self) -> tuple[str, ...]:
        """Sides whose numbers other processes spoiled."""
        return tuple(summary.side for summary in self.summaries if summary.others_share > DISTURBED_SHARE)

    def ratio(self, ours: str, other: str) -> float | None:
        """How many times the samples/s of side `other` those of `ours` are; None where one of them did not run."""
        seconds = {summary.side: summary.median_seconds for summary in self.summaries}
        return seconds[other] / seconds[ours] if ours in seconds and other in seconds else None

    def ratios(self) -> dict[str, dict[str, float]]:
        """`ratios()[peer][ours]`: how many times the peer's median samples/s this project's are."""
        ours = [
            summary
            for summary in self.summaries
            if SIDES[summary.side].environment is None and SIDES[summary.side].models
        ]
        peers = [summary for summary in self.summaries if SIDES[summary.side].environment is not None]
        return {peer.side: {own.side: peer.median_seconds / own.median_seconds for own in ours} for peer in peers}

    def target(self, name: str, ours: str, other: str, *, at_least: float) -> Target:
        """`ratio(ours, other)` as a target, judged only where both ran undisturbed."""
        reasons = [f"{absence.side}: {absence.reason.splitlines()[0]}" for absence in self.absences]
        unknown = [reason for reason in reasons if reason.startswith((f"{ours}:", f"{other}:"))]
        spoiled = [side for side in (ours, other) if side in self.disturbed]
        if spoiled:
            unknown.append(f"{', '.join(spoiled)} disturbed")
        return Target(name=name, value=self.ratio(ours, other), at_least=at_least, unknown_because="; ".join(unknown))

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "workload": dict(self.workload),
            "sides": [summary.to_dict() for summary in self.summaries],
            "absent": {absence.side: absence.reason for absence in self.absences},
            "ratios": self.ratios(),
        }

    def to_markdown(self) -> str:
        """The report of this workload: a table of sides, the absent ones named, a table of ratios."""
        cap = self.workload.get("max_rows")
        ids = self.workload["ids_per_row"]
        lines = [
            (f"### {self.title}: batch" if self.title else "### Batch")
            + f" {self.workload['batch_size']}, D = {self.workload['embedding_dim']}, "
            f"{self.workload['tables']} tables, {self.workload['total_rows']:,} rows"
            + (f" (at most {cap:,} a table)" if cap else "")
            + (f", {ids} ids a sample" if ids != self.workload["tables"] else ""),
            "",
            "| side | median samples/s | best samples/s | median ms/step | rounds, ms | peak MiB | others' CPU |",
            "|---|--:|--:|--:|---|--:|--:|",
        ]
        for summary in self.summaries:
            rounds = " ".join(f"{seconds * 1e3:.2f}" for seconds in summary.round_seconds)
            lines.append(
                f"| {summary.side} | {summary.median_samples_per_second:,.0f} | "
                f"{summary.best_samples_per_second:,.0f} | {summary.median_seconds * 1e3:.2f} | {rounds} | "
                f"{summary.peak_bytes / MIB:,.0f} | {summary.others_share:.0%} |"
            )
        for absence in self.absences:
            lines.append(f"| {absence.side} | {' '.join(absence.reason.splitlines()[:1])} | | | | |")
        disturbed = self.disturbed
        if disturbed:
            lines += [
                "",
                f"**Disturbed**: other processes took more than {DISTURBED_SHARE:.0%} of the machine while "
                f"{', '.join(disturbed)} ran. Do not quote these numbers.",
            ]
        ratios = self.ratios()
        own_names = list(next(iter(ratios.values()), {}))
        if own_names:
            lines += [
                "",
                "Ratio of medians, this project's samples/s over the peer's "
                "(bold: the same row optimizer on both sides):",
                "",
                "| peer | " + " | ".join(own_names) + " |",
                "|---|" + "--:|" * len(own_names),
            ]
            for peer, row in ratios.items():
                cells = [
                    "disturbed"
                    if {peer, own} & set(disturbed)
                    else f"**{row[own]:.2f}×**"
                    if SIDES[peer].same_work_as == own
                    else f"{row[own]:.2f}×"
                    for own in own_names
                ]
                lines.append(f"| {peer} | " + " | ".join(cells) + " |")
        return "\n".join(lines)
