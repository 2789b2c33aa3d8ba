"""Commands that this package adds to the program `tfdlrm`, announced by entry points in setup.cfg."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdlrm.checks import quoted

if TYPE_CHECKING:
    from tfdlrm.training.demo import DemoResult

LARGEST_AUC_GAP = 0.01
LARGEST_PROBABILITY_DIFFERENCE = 1e-6
EXIT_CHECK_FAILED = 1
EXIT_INTERRUPTED = 130


def add_export(commands: Any) -> None:
    """Adds `export`."""
    from savedmodels.names import QUANTIZATIONS, SIGNATURES, UNSEEN_POLICIES
    from tfdlrm.cli.evaluate import add_model

    parser = commands.add_parser(
        "export",
        help="write a trained model as a SavedModel",
        description="Write a trained model as the next numbered version of a SavedModel: raw values in, probabilities "
        "out, stock TensorFlow ops only, no optimizer state.",
    )
    add_model(parser)
    parser.add_argument("output", metavar="OUT", help="folder of all versions")
    parser.add_argument("--name", default="model", help="of the model, as clients will call it; default: model")
    parser.add_argument("--quantize", choices=QUANTIZATIONS, default="none", help="how rows are stored; default: none")
    parser.add_argument("--signatures", type=_names, metavar="A,B", help=f"default: all of {', '.join(SIGNATURES)}")
    parser.add_argument(
        "--candidates",
        type=_names,
        default=(),
        metavar="A,B",
        help="for the signature rank: features (perhaps dense) of a candidate; all others are the user's",
    )
    parser.add_argument(
        "--unseen",
        choices=UNSEEN_POLICIES,
        default="error",
        help="a value that no vocabulary has, where the schema has no row for it: an error (default), or no vector",
    )
    parser.add_argument(
        "--prune-below",
        type=int,
        metavar="N",
        help="leave out rows of ids that occur fewer than N times in the training part of the run's data",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="print metrics of the model and of its export on the run's test part (with --quantize, --prune-below)",
    )
    parser.set_defaults(run=_export)


def add_export_delta(commands: Any) -> None:
    """Adds `export-delta`."""
    parser = commands.add_parser(
        "export-delta",
        help="what changed between two exports",
        description="Write the rows that differ between two versions, and the small files whole: enough to make the "
        "later one of the earlier one, byte for byte.",
    )
    parser.add_argument("base", metavar="BASE", help="a version's folder, that the receivers have")
    parser.add_argument("new", metavar="NEW", help="a later version's folder")
    parser.add_argument("delta", metavar="DELTA", help="the folder to write")
    parser.set_defaults(run=_export_delta)


def add_apply_delta(commands: Any) -> None:
    """Adds `apply-delta`."""
    parser = commands.add_parser(
        "apply-delta",
        help="make a version of an earlier one and a delta",
        description="Make a version of an earlier one and a delta. Every file is compared with its checksum before the "
        "version appears.",
    )
    parser.add_argument("base", metavar="BASE", help="the version's folder that the delta was made from")
    parser.add_argument("delta", metavar="DELTA", help="from export-delta")
    parser.add_argument("output", metavar="OUT", help="folder of all versions")
    parser.set_defaults(run=_apply_delta, needs_tensorflow=False)


def add_verify(commands: Any) -> None:
    """Adds `verify`."""
    from savedmodels.verify import add_arguments, run

    parser = commands.add_parser("verify", help="check an export: files, ops, signatures, answers")
    add_arguments(parser)
    parser.set_defaults(run=run, needs_tensorflow=False)  # the process that it starts does


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


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
    from savedmodels.export import ExportOptions, export
    from tfdlrm.cli.tables import format_number
    from tfdlrm.data.opening import open_dataset
    from tfdlrm.training.model_dir import ModelDir
    from tfdlrm.training.prediction import load_run

    model, config, preprocessing = load_run(arguments.model_dir, arguments.checkpoint)
    data = None
    if arguments.prune_below is not None or arguments.compare:
        data = open_dataset(config.data, bad_rows=config.train.bad_rows, preprocessing=preprocessing)
    kept = {}
    if arguments.prune_below is not None and data is not None:
        from savedmodels.pruning import frequent_rows

        kept = frequent_rows(model, data.train, arguments.prune_below)
    best = ModelDir(arguments.model_dir).read_best() or {}
    options = ExportOptions(
        quantize=arguments.quantize,
        signatures=arguments.signatures,
        candidates=arguments.candidates,
        unseen=arguments.unseen,
        kept=kept,
        model_name=arguments.name,
        metrics={best["monitor"]: best["value"]} if best else {},
    )
    folder = export(model, arguments.output, preprocessing=preprocessing, options=options)
    print(f"export: {folder}")
    _print_sizes(folder)
    if data is not None and arguments.compare:
        from savedmodels.quality import COMPARED, compare
        from tfdlrm.cli.tables import print_table

        part = data.test or data.validation or data.train
        quality = compare(model, part, options)
        rows = [
            (
                name,
                *(f"{value:.6f}" for value in (quality.live[name], quality.exported[name])),
                f"{quality.change(name):+.6f}",
            )
            for name in COMPARED
        ]
        title = f"{format_number(quality.live['rows'])} rows"
        print_table(title, ("metric", "model", "export", "change"), rows)


def _print_sizes(folder: Path) -> None:
    """What the export takes, and what rounding did to its rows."""
    from savedmodels.manifest import read_manifest
    from tfdlrm.cli.tables import print_table

    manifest = read_manifest(folder)
    rows = [(kind.replace("_", " "), f"{size / 2**20:,.2f} MiB") for kind, size in manifest["sizes"].items()]
    print_table("size", ("part", "bytes"), rows)
    errors = manifest["row_errors"]
    if errors:
        table, worst = max(errors.items(), key=lambda item: item[1]["largest"])
        print(
            f"rounding: at most {worst['largest']:.3g} (table {quoted(table)}; analytic bound "
            f"{worst['bound']:.3g}); rows "
            f"beyond their bound: {sum(each['beyond_bound'] for each in errors.values())}"
        )


def _export_delta(arguments: argparse.Namespace) -> None:
    from savedmodels.delta import export_delta

    changed = export_delta(arguments.base, arguments.new, arguments.delta)
    size = sum(path.stat().st_size for path in Path(arguments.delta).rglob("*") if path.is_file())
    print(f"delta: {arguments.delta}: {changed:,} rows, {size / 2**20:,.2f} MiB")


def _apply_delta(arguments: argparse.Namespace) -> None:
    from savedmodels.delta_files import read_delta
    from tfdlrm.cli.quiet_start import import_tensorflow

    delta = read_delta(arguments.base, arguments.delta)  # what is wrong with it is told before TensorFlow starts
    import_tensorflow()
    from savedmodels.delta import write_version

    print(f"export: {write_version(delta, arguments.output)}")


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
    from savedmodels.export import ExportOptions, export
    from savedmodels.recorded import read_requests
    from savedmodels.serve_once import SIGNATURE, serve_once

    candidates = result.data.spec.feature_names[-1:]
    options = ExportOptions(candidates=candidates, metrics=dict(result.metrics))
    version = export(result.model, folder, preprocessing=result.data.preprocessing, options=options)
    print(f"export: {version}")
    recorded = read_requests(version)[SIGNATURE][0]
    # a request of one row, and the live model's answer to it by way of training's reader
    inputs = {name: values.tolist() for name, values in recorded.inputs.items()}  # the demo's rows hold no text
    live = float(recorded.outputs["probability"][0, 0])
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
