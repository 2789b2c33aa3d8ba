"""TrainConfig: how a model is trained, whatever the model and the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from tfdlrm import checks
from tfdlrm.checks import quoted
from tfdlrm.config.parameter_server import ParameterServerConfig
from tfdlrm.config.tables import read_row_optimizer
from tfdlrm.embeddings.optimizers import RowOptimizer, row_optimizer_to_dict
from tfdlrm.records import Reader, Record, optional

Optimizer = Literal["sgd", "adagrad", "adam"]
Loss = Literal["bce", "mse", "wbce"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
MonitorMode = Literal["max", "min"]
OutputBias = Literal["base_rate", "reference"]
BadRows = Literal["error", "quarantine"]
Strategy = Literal["local", "parameter_server"]


@dataclass(frozen=True, kw_only=True)
class LearningRateConfig(Record):
    """The reference's policy: linear warmup, plateau, quadratic decay; steps counted from 1.

    With W warmup steps, S the start of the decay and N decay steps: s < W gives base * s / W;
    S <= s < S + N gives base * ((N - (s - S)) / N)^2, at least 1e-7 or base; otherwise the last value stays where
    there is a decay, and it is base where there is none.

    Args:
        warmup_steps: 0 for none.
        decay_start_step: not before the warmup ends.
        num_decay_steps: 0 for no decay.
    """

    warmup_steps: int = 0
    decay_start_step: int = 0
    num_decay_steps: int = 0

    def __post_init__(self) -> None:
        for name in self.field_names():
            self._set(**{name: checks.check_integer("LearningRateConfig", name, getattr(self, name), minimum=0)})
        if self.num_decay_steps and self.decay_start_step < self.warmup_steps:
            raise ValueError(
                f"LearningRateConfig: decay_start_step={self.decay_start_step} is before the end of the "
                f"warmup, warmup_steps={self.warmup_steps}. Start the decay at {self.warmup_steps} or later."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Record):
    """One training run.

    Args:
        optimizer: of the dense layers.
        learning_rate: of dense layers and, where they state none, tables.
        row_optimizer: of the tables; None for the row form of `optimizer`.
        schedule: the reference's learning-rate policy, or None for a constant rate.
        loss: `bce`, `mse` or `wbce`, mean(loss_weights[label] * bce).
        loss_weights: of labels 0 and 1, for `wbce`.
        output_bias: `base_rate` begins training at the constant that the training part's labels call for; `reference`
            at the reference's random logits.
        probability_clamp: t; the probability is limited to [t, 1 - t] in the loss; 0 for no clamp.
        global_batch_size: rows a step, over all replicas.
        epochs: passes over the training part.
        steps_per_epoch: end an epoch after so many steps; None for the whole training part.
        shuffle: shuffle rows, anew each epoch.
        seed: of the order of rows and of dropout.
        deterministic: bit-identical runs and resumption, at some cost in speed.
        global_clipnorm: limit of the gradient's L2 norm over dense variables and touched rows; None for none.
        gradient_accumulation_steps: steps whose gradients make one update; None for 1.
        precision: of the dense layers; rows stay float32.
        steps_per_execution: steps a call of the compiled function; `auto` takes more of small batches, and a divisor of
            `checkpoint_every_steps`.
        checkpoint_every_steps, checkpoint_every_minutes: None for never; both may be given.
        keep_checkpoints: the last so many.
        monitor, monitor_mode: metric that names the best model, and which end of it is good.
        early_stopping_patience: epochs without improvement before training ends; None for no early stopping.
        bad_rows: `error` at the first bad row, or `quarantine` counts it and sets it aside.
        group_by: key column of the grouped AUC; None for none.
        strategy: `local` trains in one process; `parameter_server` over a cluster, tables cut over its servers.
        parameter_server: how that goes.

    Raises:
        ValueError: a value is not valid.

    Example:
        >>> TrainConfig(optimizer="adagrad", learning_rate=0.05).row_optimizer is None
        True
    """

    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    row_optimizer: RowOptimizer | None = None
    schedule: LearningRateConfig | None = None
    loss: Loss = "bce"
    loss_weights: tuple[float, float] = (1.0, 1.0)
    probability_clamp: float = 0.0
    output_bias: OutputBias = "base_rate"
    global_batch_size: int = 2048
    epochs: int = 1
    steps_per_epoch: int | None = None
    shuffle: bool = True
    seed: int = 0
    deterministic: bool = False
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int | None = None
    precision: Precision = "float32"
    steps_per_execution: int | Literal["auto"] = "auto"
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 10.0
    keep_checkpoints: int = 3
    monitor: str = "val_auc"
    monitor_mode: MonitorMode = "max"
    early_stopping_patience: int | None = None
    bad_rows: BadRows = "error"
    group_by: str | None = None
    strategy: Strategy = "local"
    parameter_server: ParameterServerConfig = field(default_factory=ParameterServerConfig)

    readers: ClassVar[Mapping[str, Reader]] = {
        "row_optimizer": read_row_optimizer,
        "schedule": optional(LearningRateConfig.from_dict),
        "parameter_server": ParameterServerConfig.from_dict,
    }
    writers: ClassVar[Mapping[str, Reader]] = {"row_optimizer": optional(row_optimizer_to_dict)}

    def __post_init__(self) -> None:
        owner, integer, number, maybe = (
            "TrainConfig",
            checks.check_integer,
            checks.check_number,
            checks.check_optional,
        )
        for name, allowed in (
            ("optimizer", get_args(Optimizer)),
            ("loss", get_args(Loss)),
            ("precision", get_args(Precision)),
            ("monitor_mode", get_args(MonitorMode)),
            ("bad_rows", get_args(BadRows)),
            ("output_bias", get_args(OutputBias)),
            ("strategy", get_args(Strategy)),
        ):
            checks.check_choice(owner, name, getattr(self, name), allowed)
        for name in ("shuffle", "deterministic"):
            checks.check_flag(owner, name, getattr(self, name))
        for name in ("global_batch_size", "epochs", "keep_checkpoints"):
            self._set(**{name: integer(owner, name, getattr(self, name), minimum=1)})
        for name in (
            "steps_per_epoch",
            "gradient_accumulation_steps",
            "checkpoint_every_steps",
            "early_stopping_patience",
        ):
            self._set(**{name: maybe(integer, owner, name, getattr(self, name), minimum=1)})
        for name in ("global_clipnorm", "checkpoint_every_minutes"):
            self._set(**{name: maybe(number, owner, name, getattr(self, name), above=0.0)})
        self._set(
            learning_rate=number(owner, "learning_rate", self.learning_rate, minimum=0.0),
            probability_clamp=number(owner, "probability_clamp", self.probability_clamp, minimum=0.0, below=0.5),
            seed=integer(owner, "seed", self.seed, minimum=0),
            loss_weights=self._check_loss_weights(owner),
        )
        if self.steps_per_execution != "auto":
            self._set(steps_per_execution=integer(owner, "steps_per_execution", self.steps_per_execution, minimum=1))
        checks.check_name(owner, "monitor", self.monitor)
        maybe(checks.check_name, owner, "group_by", self.group_by)
        maybe(checks.check_instance, owner, "row_optimizer", self.row_optimizer, kind=RowOptimizer)
        maybe(checks.check_instance, owner, "schedule", self.schedule, kind=LearningRateConfig)
        checks.check_instance(owner, "parameter_server", self.parameter_server, ParameterServerConfig)
        if self.strategy == "parameter_server":
            self._refuse_on_parameter_servers(owner)

    def _refuse_on_parameter_servers(self, owner: str) -> None:
        synchronous = self.parameter_server.synchronous
        refused = (
            (
                "deterministic",
                self.deterministic,
                "processes run side by side. parameter_server.synchronous=true has one machine's numbers, rounded",
            ),
            (
                "gradient_accumulation_steps",
                (self.gradient_accumulation_steps or 1) > 1,
                "pushes of several workers would be held together. Raise global_batch_size",
            ),
            ("precision", self.precision == "mixed_float16", "losses are not scaled there. Use mixed_bfloat16"),
            (
                "global_clipnorm",
                bool(self.global_clipnorm) and synchronous,
                "with parameter_server.synchronous=true no process sees the whole gradient. Leave one of them out",
            ),
        )
        for name, is_set, why in refused:
            if is_set:
                value = getattr(self, name)
                raise ValueError(
                    f"{owner}: {name}={quoted(value)} cannot be honoured with strategy='parameter_server': {why}."
                )

    def _check_loss_weights(self, owner: str) -> tuple[float, ...]:
        weights = checks.check_list(owner, "loss_weights", self.loss_weights)
        if len(weights) != 2:
            raise ValueError(
                f"{owner}: loss_weights={list(weights)} has {len(weights)} items. Give two: label 0, label 1."
            )
        return tuple(
            checks.check_number(owner, f"loss_weights[{label}]", weight, minimum=0.0)
            for label, weight in enumerate(weights)
        )
