"""Asynchronous training: every row once an epoch, Keras's callbacks, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.distribute.in_process import run_script

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads(run_script("tests.distribute.asynchronous_run"))


def test_every_row_is_trained_on_once_an_epoch(results: dict[str, Any]) -> None:
    found, expected = results["counts"]
    assert found == expected
    assert results["scores"] == expected  # and predicted in order, in batches that do not fit


def test_callbacks_are_those_of_one_machine(results: dict[str, Any]) -> None:
    assert results["batches"] == [3 * 32, 3]  # 1,003 rows in batches of 32
    assert results["history"] == 3
    # early stopping ended the second epoch, which was no better
    assert results["logs"] == {"loss": 2, "auc": 2, "val_loss": 2, "val_auc": 2}


def test_whole_tables_are_read_by_save_weights_alone(results: dict[str, Any]) -> None:
    for refused in results["whole tables"]:
        assert "ValueError: table 't/rows': its rows are on other machines" in refused
        assert "save_weights" in refused
    trained, on_servers, here = results["weights"]
    assert trained == on_servers == here


def test_epochs_of_so_many_steps_are_those_of_one_machine(results: dict[str, Any]) -> None:
    found, alone = results["run out"]
    assert found == alone


def test_a_model_that_is_not_compiled_predicts(results: dict[str, Any]) -> None:
    assert results["uncompiled"] == [0.0] * 5


def test_progress_is_shown(results: dict[str, Any]) -> None:
    assert results["shown"].count("32/32") >= 2


def test_it_learns(results: dict[str, Any]) -> None:
    before, after = results["losses"]
    assert after < before


def test_steps_are_traced_once(results: dict[str, Any]) -> None:
    assert results["traced"] == ["test", "train"]  # of two epochs with validation, and an evaluation
    assert results["traced again"] == []


def test_an_id_out_of_range_ends_the_training_by_name(results: dict[str, Any]) -> None:
    assert "InvalidArgumentError" in results["out of range"]
    assert "feature 'f'" in results["out of range"]
    assert "table 't'" in results["out of range"]
    assert "50" in results["out of range"]


def test_nothing_to_predict_is_refused(results: dict[str, Any]) -> None:
    assert "Give at least one row" in results["no rows"] or "ValueError" in results["no rows"]


def test_what_cannot_be_honoured_is_refused_at_compile(results: dict[str, Any]) -> None:
    refused = results["refused"]
    assert "gradient_accumulation_steps=2 is not supported" in refused["accumulation"]
    assert "loss scaling" in refused["scaling"]
    assert "global_clipnorm=1.0 is not supported in synchronous mode" in refused["clipping"]
    assert "reduction='mean_with_sample_weight' is not supported in synchronous mode" in refused["weighted mean"]
    assert "a loss of reduction='None' is not supported" in refused["no reduction"].replace("=None", "='None'")
    assert "the loss 'loss_of_a_batch' gives one number for a batch" in refused["of a batch"]
    assert "there is no batch in the data. Give at least one row, or, with drop_remainder" in refused["no batch"]


def test_losses_that_are_sums_are_those_of_one_machine(results: dict[str, Any]) -> None:
    """In synchronous mode, where each worker has its part of a batch."""
    (rows, loss), (rows_there, loss_there) = results["summed"]
    assert rows_there == rows
    assert loss_there == pytest.approx(loss, rel=1e-5)
