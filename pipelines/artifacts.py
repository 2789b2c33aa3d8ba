"""Artifacts of this package's components, and which of an earlier run a new one is compared with."""

from __future__ import annotations

import os
from typing import Any

from pipelines.tfx_extra import tfx

# TFX's own names, in ModelBlessing
BLESSED, CURRENT_MODEL = "blessed", "current_model_id"
CURRENT_STATISTICS = "current_statistics_id"


class Report(tfx.dsl.Artifact):
    """A folder with `report.html`, for people, and `problems.json`, a list of texts."""

    TYPE_NAME = "TfdlrmReport"


class ExamplesBlessing(tfx.dsl.Artifact):
    """Says that examples, whose statistics have the id `current_statistics_id`, may be trained on."""

    TYPE_NAME = "TfdlrmExamplesBlessing"


class LatestBlessed(tfx.dsl.experimental.ResolverStrategy):
    """Resolves `baseline` to the artifact that was blessed last of those that are older than `candidate`.

    Older, and not merely another: a run whose inputs are those of an earlier run then has the baseline of that run,
    too, and takes all from the cache.

    Args:
        of: custom property of `blessing` that holds the id of the blessed artifact.
    """

    def __init__(self, of: str) -> None:
        self._of = of

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """See `tfx.dsl.experimental.ResolverStrategy`."""
        candidates = [artifact.id for artifact in input_dict["candidate"]]
        blessed = {
            blessing.get_int_custom_property(self._of)
            for blessing in input_dict["blessing"]
            if blessing.get_int_custom_property(BLESSED)
        }
        older = [
            artifact
            for artifact in input_dict["baseline"]
            if artifact.id in blessed and artifact.id < min(candidates, default=0) and os.path.isdir(artifact.uri)
        ]
        latest = sorted(older, key=lambda artifact: artifact.id)[-1:]
        return {"candidate": input_dict["candidate"], "baseline": latest, "blessing": []}


def latest_blessed(candidate: Any, kind: type[Any], blessing: type[Any], *, of: str, name: str) -> tfx.dsl.Resolver:
    """A Resolver whose output `baseline` is the artifact blessed last before the candidate was made, or nothing.

    Args:
        candidate: channel of the artifact that will be compared.
        kind: its type.
        blessing: type of the artifacts that bless.
        of: their custom property that holds the id of what is blessed.
        name: of the node.
    """
    return tfx.dsl.Resolver(
        strategy_class=LatestBlessed,
        config={"of": of},
        candidate=candidate,
        baseline=tfx.dsl.Channel(type=kind),
        blessing=tfx.dsl.Channel(type=blessing),
    ).with_id(name)
