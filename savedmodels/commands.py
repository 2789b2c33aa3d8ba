"""Commands that this package adds to the program `tfdlrm`, announced by entry points in setup.cfg."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfdlrm.training.demo import DemoResult

LARGEST_AUC_GAP = 0.01
LARGEST_PROBABILITY_DIFFERENCE = 1e-6
EXIT_CHECK_FAILED = 1
EXIT_INTERRUPTED = 130


def add_export(commands: Any) -> None:
    """Adds `export`."""
    from tfdlrm.cli.evaluate import add_model

    parser = commands.add_parser(
        "export",
        help="write a trained model as a SavedModel",
        description="Write a trained model as the next numbered version of a SavedModel: stock TensorFlow ops only, no "
        "optimizer state. Inputs are the transformed columns the model was trained on.",
    )
    add_model(parser)
    parser.add_argument("output", metavar="OUT", help="folder of all versions")
    parser.set_defaults(run=_export)


def add_demo(commands: Any) -> None:
    """Adds `demo`."""
    parser = commands.add_parser(
        "demo",
        help="train on generated rows, compare with the best possible, export, answer a request",
        description="Generate rows from a known teacher, train the preset quickstart, compare it with the best "
        "possible AUC, export it and answer one request with plain TensorFlow.",
    )
    parser.add_argument("--model-dir", default="build/demo", metavar="DIR", help="default: build/demo")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the results")
    parser.set_defaults(run=_demo)


def _export(arguments: argparse.Namespace) -> None:
    from savedmodels.export import export
    from tfdlrm.training.prediction import load_run

    model, _, preprocessing = load_run(arguments.model_dir, arguments.checkpoint)
    print(f"export: {export(model, arguments.output, spec=preprocessing.spec)}")


def _demo(arguments: argparse.Namespace) -> int:
    from tfdlrm.training.demo import EXPORT, demo_folder, run_demo

    with demo_folder(Path(arguments.model_dir)) as folder:
        result = run_demo(folder, verbose=0 if arguments.quiet else 1)
        if result is None:
            return EXIT_INTERRUPTED
        is_good = _compare(result)
        is_same = _serve(result, folder / EXPORT)
    return 0 if is_good and is_same else EXIT_CHECK_FAILED


def _compare(result: DemoResult) -> bool:
    """Prints the model beside the teacher; whether it is near enough."""
    from tfdlrm.cli.tables import format_number, print_table

    print(result.data.books)
    rows = [
        (name, *(format_number(v) for v in (result.metrics[name], result.best[name])))
        for name in ("auc", "pr_auc", "log_loss", "normalized_entropy", "calibration", "accuracy")
    ]
    rows_tested = format_number(result.metrics["rows"])
    print_table(f"{rows_tested} rows not trained on", ("metric", "model", "best possible"), rows)
    print(
        "best possible: the probabilities the labels were drawn from, on the same labels "
        f"(over all labels: AUC {result.expected_auc:.6f}, log loss {result.expected_log_loss:.6f})"
    )
    is_good = result.auc_gap <= LARGEST_AUC_GAP
    verdict = "within" if is_good else "FAILED: not within"
    print(f"AUC: {result.auc_gap:.6f} below the best possible, {verdict} {LARGEST_AUC_GAP}")
    return is_good


def _serve(result: DemoResult, folder: Path) -> bool:
    """Exports the model and compares one answer of plain TensorFlow with the live model's."""
    import tensorflow as tf

    from savedmodels.export import export, input_specs
    from savedmodels.serve_once import serve_once

    model, spec = result.model, result.data.spec
    version = export(model, folder, spec=spec)
    print(f"export: {version}")
    assert result.data.test is not None
    features, _ = next(iter(result.data.test.batches(1)))
    live = float(tf.sigmoid(model(features, training=False))[0, 0])
    inputs = {name: features[name].numpy().tolist() for name in input_specs(model.config, spec)}
    print(
        "one request to a process that has plain TensorFlow and cannot import tfdlrm "
        "(a smoke test, not TensorFlow Serving)"
    )
    served = serve_once(version, inputs)["probability"][0][0]
    difference = abs(served - live)
    is_same = difference <= LARGEST_PROBABILITY_DIFFERENCE
    verdict = "within" if is_same else "FAILED: not within"
    print(f"probability: served {served:.8f}, model {live:.8f}, {difference:.1e} apart, {verdict} 1e-6")
    return is_same
