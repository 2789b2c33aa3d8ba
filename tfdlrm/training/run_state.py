"""RunState: how far a run has come. What a checkpoint holds beside the numbers of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from tfdlrm.checks import check_flag, check_integer, check_mapping, check_name, check_number, quoted


@dataclass(kw_only=True)
class BestModel:
    """The best epoch so far.

    Args:
        step: global step at its end.
        epoch: from 0.
        monitor: name of the metric.
        value: of the metric.
        checkpoint: name of the checkpoint folder that holds it.
    """

    step: int
    epoch: int
    monitor: str
    value: float
    checkpoint: str

    @classmethod
    def from_dict(cls, given: Any) -> Self:
        """From JSON.

        Raises:
            ValueError: a field is missing, or no value of its kind; names it.
        """
        check_mapping("best", "the entry", given)
        for name in ("step", "epoch"):
            check_integer("best", name, given.get(name), minimum=0)
        for name in ("monitor", "checkpoint"):
            check_name("best", name, given.get(name))
        if not isinstance(given.get("value"), (int, float)):
            raise ValueError(f"best: value={quoted(given.get('value'))} is no number.")
        return cls(**{f.name: given[f.name] for f in fields(cls)})


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. Callbacks move it on; every checkpoint holds a copy.

    The position `(epoch, batch)` is that of the next batch. `batch == batches_per_epoch` is the end of an epoch
    that is trained but not yet validated; `(epoch + 1, 0)` is the end of one that is.

    Args:
        step: training steps so far, over all epochs (micro-batches, with gradient accumulation).
        epoch, batch: position in the data.
        batches_per_epoch: training steps an epoch.
        rows: training rows an epoch.
        best: the best epoch so far.
        epochs_without_improvement: since `best`, for early stopping.
        elapsed_seconds: wall time of training over all sessions, this one included.
        seed: of the order of rows and of dropout.
        books: rows of all files: read, used and set aside.
        unknown_ids: share of unknown ids of the validation part, by column; see `UnknownIds`.
        resumable: whether training can go on from here; False in the middle of a gradient accumulation.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches_per_epoch: int = 0
    rows: int = 0
    best: BestModel | None = None
    epochs_without_improvement: int = 0
    elapsed_seconds: float = 0.0
    seed: int = 0
    books: dict[str, int] = field(default_factory=dict)
    unknown_ids: dict[str, float] = field(default_factory=dict)
    resumable: bool = True

    @property
    def epoch_is_trained(self) -> bool:
        """Whether the last batch of the epoch is behind."""
        return self.batch >= self.batches_per_epoch

    def has_ended(self, epoch: int) -> bool:
        """Whether that epoch has just been trained and validated."""
        return (self.epoch, self.batch) == (epoch + 1, 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; keys that a newer version added are left out.

        Raises:
            ValueError: a field is no value of its kind, or beyond what a run can have; names it.
        """
        check_mapping("state", "the entry", given)
        known = {f.name: given[f.name] for f in fields(cls) if f.name in given}
        for name in ("step", "epoch", "batch", "batches_per_epoch", "rows", "epochs_without_improvement", "seed"):
            if check_integer("state", name, known.get(name, 0), minimum=0) >= 2**63:
                raise ValueError(f"state: {name}={known[name]} is beyond int64.")
        if known.get("batch", 0) > known.get("batches_per_epoch", 0):
            raise ValueError(f"state: batch={known['batch']} is beyond the {known['batches_per_epoch']} of an epoch.")
        check_number("state", "elapsed_seconds", known.get("elapsed_seconds", 0.0), minimum=0.0)
        check_flag("state", "resumable", known.get("resumable", True))
        for name, check in (("books", check_integer), ("unknown_ids", check_number)):
            check_mapping("state", name, known.get(name, {}))
            for key, value in known.get(name, {}).items():
                check(f"state: {name}", key, value)
        if known.get("best") is not None:
            known["best"] = BestModel.from_dict(known["best"])
        return cls(**known)
