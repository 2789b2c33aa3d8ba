"""What an export takes: peak memory while it is written, size by quantization, and what quantization costs in AUC.

    python benchmarks/export_size.py                        # Criteo-Kaggle, 33.8M rows, D = 16
    python benchmarks/export_size.py --max-rows 100000      # a quick look

Memory and sizes are those of an untrained model; each export is a process of its own, and its peak resident size is
the operating system's count. AUC is that of the demo's model, trained on rows of a known teacher (about a minute).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

from machine import this_machine
from targets import Target
from turns import NUMBERS_DIR
from workload import Workload, add_workload_arguments, workload_from_arguments

COPIES_ALLOWED = 1.2
FRAMEWORK_BYTES = 1.5e9
GIGA = 1e9
LARGEST_SHARE = {"int8": 0.33, "int4": 0.2}
LARGEST_AUC_CHANGE = {"int8": 0.0005, "int4": 0.002}


def export_once(workload: Workload, quantize: str, folder: Path) -> None:
    """The child: builds the model and exports it."""
    import serving_export

    from savedmodels.export import ExportOptions, export

    export(serving_export.build_model(workload), folder, options=ExportOptions(quantize=quantize))


def measured_export(arguments: Sequence[str], quantize: str, folder: Path) -> tuple[float, int, int]:
    """(peak resident bytes, bytes of all files, bytes of the rows) of one export."""
    command = [sys.executable, __file__, *arguments, "--child", quantize, str(folder)]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    files = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    manifest = json.loads((folder / "1" / "assets.extra" / "tfdlrm" / "manifest.json").read_text())
    shutil.rmtree(folder)
    return usage.ru_maxrss * 1024.0, files, manifest["sizes"]["rows"]


def auc_changes() -> dict[str, float]:
    """Quantization -> AUC of the export less that of the model, on the demo's test part."""
    from savedmodels.export import ExportOptions
    from savedmodels.quality import compare
    from tfdlrm.training.demo import demo_folder, run_demo

    with tempfile.TemporaryDirectory() as scratch, demo_folder(Path(scratch) / "demo") as folder:
        result = run_demo(folder, verbose=0)
        if result is None or result.data.test is None:
            raise RuntimeError("the demo's training was interrupted")
        found = {}
        for quantize in ("bf16", "int8", "int4"):
            quality = compare(result.model, result.data.test, ExportOptions(quantize=quantize))
            found[quantize] = quality.change("auc")
            print(
                f"{quantize}: AUC {quality.live['auc']:.6f} -> {quality.exported['auc']:.6f} ({found[quantize]:+.6f}), "
                f"log loss {quality.change('log_loss'):+.6f}, {quality.live['rows']:,.0f} rows",
                flush=True,
            )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload_arguments(parser)
    parser.add_argument("--json", type=Path, default=NUMBERS_DIR / "export_size.json")
    parser.add_argument("--child", nargs=2, metavar=("QUANTIZE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    workload = workload_from_arguments(arguments)
    if arguments.child:
        export_once(workload, arguments.child[0], Path(arguments.child[1]))
        return 0
    given = list(sys.argv[1:] if argv is None else argv)
    table_bytes = sum(workload.vocabulary_sizes) * workload.embedding_dim * 4
    print(f"machine: {this_machine()}")
    print(
        f"model: {sum(workload.vocabulary_sizes):,} rows of D = {workload.embedding_dim}, {table_bytes / GIGA:.2f} GB"
    )
    targets, numbers = [], {}
    with tempfile.TemporaryDirectory(dir=NUMBERS_DIR) as scratch:
        for quantize in ("none", "int8", "int4"):
            peak, files, rows = measured_export(given, quantize, Path(scratch) / quantize)
            numbers[quantize] = {"peak": peak, "files": files, "rows": rows}
            print(
                f"{quantize}: peak {peak / GIGA:.2f} GB, files {files / GIGA:.3f} GB, rows {rows / GIGA:.3f} GB",
                flush=True,
            )
            limit = COPIES_ALLOWED * table_bytes + FRAMEWORK_BYTES
            targets.append(Target(name=f"{quantize}: peak", value=peak / GIGA, at_most=limit / GIGA, unit=" GB"))
            if quantize in LARGEST_SHARE:
                share = files / numbers["none"]["files"]
                targets.append(Target(name=f"{quantize}: share of size", value=share, at_most=LARGEST_SHARE[quantize]))
    changes = auc_changes()
    for quantize, largest in LARGEST_AUC_CHANGE.items():
        targets.append(Target(name=f"{quantize}: AUC lost", value=-changes[quantize], at_most=largest, unit=""))
    for target in targets:
        print(f"- {target}")
    arguments.json.write_text(json.dumps({"exports": numbers, "auc": changes}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
