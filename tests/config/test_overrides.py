"""`--set a.b=c`: what it changes, what it leaves and what it refuses."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings

from tests.config_samples import experiment
from tests.strategies import EXPERIMENTS
from tfdlrm.config import apply_overrides
from tfdlrm.embeddings import optimizers


@given(EXPERIMENTS)
@settings(max_examples=20)
def test_an_override_changes_nothing_else(config):
    changed = apply_overrides(config, ["train.epochs=7"])
    assert changed.train == dataclasses.replace(config.train, epochs=7)
    assert (changed.model, changed.data) == (config.model, config.data)
    assert apply_overrides(config, []) == config


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("train.epochs=2", lambda c: c.train.epochs, 2),
        ("train.learning_rate=1e-3", lambda c: c.train.learning_rate, 0.001),
        ("train.deterministic=true", lambda c: c.train.deterministic, True),
        ("train.loss_weights=[1, 2.5]", lambda c: c.train.loss_weights, (1.0, 2.5)),
        ("train.checkpoint_every_minutes=null", lambda c: c.train.checkpoint_every_minutes, None),
        ("model.top_mlp=[64,1]", lambda c: c.model.top_mlp, (64, 1)),
        ("model.top_mlp.0=32", lambda c: c.model.top_mlp, (32, 1)),
        ("model.tables.item.trainable=false", lambda c: c.model.tables[0].trainable, False),
        ("model.tables.1.vocabulary_size=99", lambda c: c.model.tables[1].vocabulary_size, 99),
        ("model.quotient_remainder.collisions=8", lambda c: c.model.quotient_remainder.collisions, 8),
        ("train.row_optimizer.name=ftrl", lambda c: c.train.row_optimizer, optimizers.FTRL()),
        ("train.row_optimizer={name: sgd, l2: 0.5}", lambda c: c.train.row_optimizer, optimizers.SGD(l2=0.5)),
        ("train.monitor=val_x=y", lambda c: c.train.monitor, "val_x=y"),
        ("data.max_rows=1000", lambda c: c.data.max_rows, 1000),
    ],
)
def test_an_override_is_applied(override, read, value):
    assert read(apply_overrides(experiment(), [override])) == value


def test_overrides_are_checked_together():
    changed = apply_overrides(experiment(), ["model.embedding_dim=4", "model.bottom_mlp=[4]"])
    assert {one.embedding_dim for one in changed.model.tables} == {4}
    with pytest.raises(ValueError, match="does not end in embedding_dim=4"):
        apply_overrides(experiment(), ["model.embedding_dim=4"])


def test_the_config_that_is_overridden_stays():
    config = experiment()
    apply_overrides(config, ["train.epochs=2", "model.tables.item.trainable=false"])
    assert config == experiment()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "TrainConfig: unknown key 'epoch', did you mean 'epochs'?"),
        ("trian.epochs=3", "--set trian.epochs=3: config: unknown key 'trian', did you mean 'train'?"),
        ("trian=3", "ExperimentConfig: unknown key 'trian', did you mean 'train'?"),
        ("train.epochs", "--set 'train.epochs' is not an assignment"),
        ("=3", "is not an assignment"),
        ("train..epochs=3", "is not an assignment"),
        ("train.epochs.x=3", "train.epochs is 1, which has no key 'x'. Set train.epochs itself"),
        ("train.epochs=two", "epochs='two' is a str"),
        ("train.epochs=", "epochs=None is a NoneType"),
        ("train.epochs=[1", "--set train.epochs=[1: not valid YAML"),
        ("train.schedule.warmup=3", "LearningRateConfig: unknown key 'warmup', did you mean 'warmup_steps'?"),
        ("model.tables.itme.trainable=false", "model.tables has no item 'itme', did you mean 'item'?"),
        (
            "model.tables.2.trainable=false",
            "model.tables has no item '2'. Give a name in it, or a position below 2",
        ),
        (
            "model.tables.item.trainabel=false",
            "TableConfig: unknown key 'trainabel', did you mean 'trainable'?",
        ),
        ("train.row_optimizer.learning_rate=0.1", "row optimizer: unknown name None"),
        ("model=3", "DLRMConfig: got 3, a int"),
    ],
)
def test_a_bad_override_is_refused(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        apply_overrides(experiment(), [override])
