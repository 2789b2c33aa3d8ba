"""Shows that an export is whole, is what it says, and answers as the model did that it was made from.

    python -m savedmodels.verify exports/clicks            # the newest version there
    python -m savedmodels.verify exports/clicks/3 --no-c-api

Exit code 0: everything passed. 1: something did not, or could not be tried. The checks are described in
`docs/verify.md`. TensorFlow is imported by a fresh process only, which cannot import tfdlrm.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savedmodels.manifest import MANIFEST_FILE, SIZE_KINDS, check_files, read_manifest
from savedmodels.names import DENSE, input_names, input_of_features
from savedmodels.recorded import RecordedRequest, load_requests, read_requests
from savedmodels.verification import c_program, fresh_process
from savedmodels.verification.comparison import Difference, compare
from savedmodels.verification.documented_signatures import signature_problems
from savedmodels.verification.job_file import JobRequest
from savedmodels.verification.report import Check, Report, Result
from tfdlrm.checks import quoted
from tfdlrm.files import strange_entries
from tfdlrm.schema import FeatureSpec

# TensorFlow restores a variable as one tensor, and protobuf and many clients end at int32 bytes
MAX_TENSOR_BYTES = 2**31 - 1
SAVED_MODEL_FILE = "saved_model.pb"
GROWN_BYTES = 2**20  # more than this is not even read
_VERSION_PARTS = (SAVED_MODEL_FILE, "variables", "assets.extra")

FILES, OPS, TENSORS, SIGNATURES = "files", "ops", "tensors", "signatures"
FRESH_PROCESS, C_API, WARM_UP, SIZES = "fresh process", "C API", "warm-up", "sizes"


def verify(version_folder: str | os.PathLike[str], *, c_api: bool = True) -> Report:
    """Verifies an export.

    Args:
        version_folder: a version, or the folder of all, of which the newest is taken.
        c_api: whether to load it by TensorFlow's C API as well, which takes a C compiler.

    Returns:
        The checks; `report.passed` says whether all is well, `report.problems` what is not.

    Raises:
        FileNotFoundError: there is no version.

    Example:
        >>> verify("exports/clicks").problems
        ()
    """
    folder = find_version(version_folder)
    refused = _refusals(folder)
    if refused:
        rest = (OPS, TENSORS, SIGNATURES, FRESH_PROCESS, C_API, WARM_UP, SIZES)
        checks = [
            Check.of(FILES, refused),
            *(Check.not_tried(name, "the files are none of an export") for name in rest),
        ]
        return Report(version_folder=folder, checks=tuple(checks))
    with tempfile.TemporaryDirectory(prefix="tfdlrm-verify-") as results:
        process = fresh_process.start(folder, Path(results))
        try:
            # while TensorFlow starts there
            manifest, files = _check_files(folder)
        finally:
            findings, problem = _findings(process, Path(results))
        answers = load_requests(Path(results) / fresh_process.ANSWERS_FILE) if findings else {}
    checks = [files]
    if findings is None:
        checks += [
            Check.of(FRESH_PROCESS, [problem]),
            *(Check.not_tried(name, "the fresh process ended") for name in (OPS, TENSORS, SIGNATURES, C_API, WARM_UP)),
        ]
    else:
        checks += [
            _check_ops(findings),
            _check_tensors(findings),
            _check_signatures(findings, manifest, _raw_numbers(folder)),
            _check_answers(folder, findings, answers, manifest),
            _check_c_api(folder, findings, manifest) if c_api else Check(name=C_API, result=Result.LEFT_OUT),
            _check_warmup(findings),
        ]
    return Report(version_folder=folder, checks=(*checks, _check_sizes(folder, manifest)))


def find_version(path: str | os.PathLike[str]) -> Path:
    """The version that a folder is, or the newest that it holds.

    Raises:
        FileNotFoundError: there is none; names what was left of an export that did not end.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder. Give a version, or the folder of all versions.")
    if any((folder / part).exists() for part in _VERSION_PARTS):
        return folder
    versions = [entry for entry in folder.iterdir() if entry.is_dir() and entry.name.isdecimal()]
    if versions:
        return max(versions, key=lambda entry: int(entry.name))
    if folder.name.isdecimal():
        raise FileNotFoundError(f"{folder} is empty: the export was not finished. Export the model again.")
    partial = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name.startswith("."))
    left = f", only what is left of exports that did not end: {', '.join(partial)}" if partial else ""
    raise FileNotFoundError(f"{folder} holds no version{left}. Export a model into it.")


def _refusals(folder: Path) -> list[str]:
    """What is enough not to load an export at all: it is not one that `export` could have written."""
    problems = strange_entries(folder)
    if problems:
        return problems
    for read in (read_manifest, read_requests):
        try:
            found = read(folder)
        except FileNotFoundError:  # told later, beside what else is missing
            continue
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        if read is read_manifest:
            problems += _grown(folder, found)
    return problems


def _grown(folder: Path, manifest: Any) -> list[str]:
    """Files that have much more than they had, which takes its time to read."""
    sizes = {name: (folder / name).stat().st_size for name in manifest["files"] if (folder / name).is_file()}
    expected = {name: manifest["files"][name]["bytes"] for name in sizes}
    return [
        f"{name} has {size} bytes, {expected[name]} in the manifest"
        for name, size in sizes.items()
        if size > expected[name] + GROWN_BYTES
    ]


def _findings(process: Any, results: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        return fresh_process.finish(process, results), ""
    except RuntimeError as error:
        return None, str(error)


def _check_files(folder: Path) -> tuple[dict[str, Any] | None, Check]:
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError) as error:
        return None, Check.of(FILES, [str(error)])
    problems = check_files(folder)
    if manifest["version"] is not None and folder.name.isdecimal() and int(folder.name) != manifest["version"]:
        problems.append(f"the folder is named {folder.name}, and the manifest is of version {manifest['version']}")
    return manifest, Check.of(FILES, problems, f"{len(manifest['files'])} files compared by SHA-256")


def _check_ops(findings: Mapping[str, Any]) -> Check:
    if findings["foreign_ops"] is None:
        return Check.of(OPS, [findings["graph_problem"]])
    problems = [f"op {quoted(op)} is not one of stock TensorFlow" for op in findings["foreign_ops"]]
    return Check.of(OPS, problems, "stock TensorFlow only" if not problems else "")


def _check_tensors(findings: Mapping[str, Any]) -> Check:
    problems = list(findings["tensor_problems"])
    for name, dtype, shape, num_bytes in findings["tensors"]:
        if num_bytes > MAX_TENSOR_BYTES:
            problems.append(
                f"tensor {quoted(name)} ({dtype} {shape}) has {num_bytes} bytes, and {MAX_TENSOR_BYTES} is the most"
            )
    total = sum(num_bytes for *_, num_bytes in findings["tensors"])
    return Check.of(TENSORS, problems, f"{len(findings['tensors'])} in variables, {_size(total)}")


def _raw_numbers(folder: Path) -> frozenset[str]:
    """Inputs that are numbers, of which bins are made."""
    try:
        spec = FeatureSpec.load((folder / MANIFEST_FILE).parent)
    except (OSError, ValueError):  # there need not be one, and `files` says where it was changed
        return frozenset()
    names = input_names([name for name in dict.fromkeys(input_of_features(spec).values()) if name != DENSE])
    return frozenset(
        names[each.raw_name] for each in spec.categorical if each.encoding == "bins" and each.raw_name in names
    )


def _check_signatures(
    findings: Mapping[str, Any], manifest: Mapping[str, Any] | None, numbers: frozenset[str]
) -> Check:
    signatures = findings["signatures"]
    if signatures is None:
        return Check.of(SIGNATURES, [findings["graph_problem"]])
    problems = signature_problems(signatures, None if manifest is None else manifest["signatures"], numbers)
    return Check.of(SIGNATURES, problems, ", ".join(signatures))


def _check_answers(
    folder: Path, findings: Mapping[str, Any], answers: Mapping[str, Any], manifest: Mapping[str, Any] | None
) -> Check:
    if findings["load_problem"]:
        return Check.of(FRESH_PROCESS, [findings["load_problem"]])
    if findings["requests_problem"]:
        return Check.of(FRESH_PROCESS, [findings["requests_problem"]])
    requests = _flat(read_requests(folder))
    answered: list[Mapping[str, np.ndarray] | str] = [
        finding["problem"] or answers[str(place)][0].outputs for place, finding in enumerate(findings["requests"])
    ]
    return _compared(FRESH_PROCESS, requests, answered, findings, manifest)


def _check_c_api(folder: Path, findings: Mapping[str, Any], manifest: Mapping[str, Any] | None) -> Check:
    signatures = findings["signatures"]
    if signatures is None or findings["requests_problem"]:
        return Check.not_tried(C_API, findings["graph_problem"] or findings["requests_problem"])
    requests = _flat(read_requests(folder))
    jobs, names, unknown = [], [], {}
    for place, (signature, _, request) in enumerate(requests):
        try:
            tensors = {kind: signatures[signature][kind] for kind in ("inputs", "outputs")}
            feeds = {tensors["inputs"][name]["tensor"]: array for name, array in request.inputs.items()}
        except KeyError as error:
            unknown[place] = f"the graph has no {quoted(error.args[0])}"
            continue
        jobs.append(JobRequest(feeds, [tensor["tensor"] for tensor in tensors["outputs"].values()]))
        names.append(list(tensors["outputs"]))
    try:
        program = c_program.ensure_built()
        replies = iter(zip(names, c_program.replay(program, folder, jobs), strict=True))
    except c_program.NoCompilerError as error:
        return Check.not_tried(C_API, f"{error}, or leave it out with --no-c-api")
    except (c_program.ProgramError, OSError, ValueError) as error:
        return Check.of(C_API, [str(error)])
    answered: list[Mapping[str, np.ndarray] | str] = []
    for place in range(len(requests)):
        if place in unknown:
            answered.append(unknown[place])
            continue
        outputs, reply = next(replies)
        answered.append(reply if isinstance(reply, str) else dict(zip(outputs, reply, strict=True)))
    return _compared(C_API, requests, answered, findings, manifest)


def _flat(requests: Mapping[str, Sequence[RecordedRequest]]) -> list[tuple[str, int, RecordedRequest]]:
    return [(signature, i, request) for signature, several in requests.items() for i, request in enumerate(several)]


def _compared(
    name: str,
    requests: Sequence[tuple[str, int, RecordedRequest]],
    answered: Sequence[Mapping[str, np.ndarray] | str],
    findings: Mapping[str, Any],
    manifest: Mapping[str, Any] | None,
) -> Check:
    problems = []
    worst: dict[str, Difference] = {}
    for (signature, number, request), outputs in zip(requests, answered, strict=True):
        where = f"signature {quoted(signature)}, request {number}"
        if isinstance(outputs, str):
            problems.append(f"{where}: {' '.join(outputs.split())}")
            continue
        tolerance = {} if manifest is None else manifest["tolerance"]
        k = request.inputs.get("k")
        comparison = compare(request.outputs, outputs, tolerance, None if k is None or k.ndim else int(k))
        problems += [f"{where}: {problem}" for problem in comparison.problems]
        for output, difference in comparison.differences.items():
            if output not in worst or difference.share > worst[output].share:
                worst[output] = difference
    problems += _without("recorded request", findings, {signature for signature, _, _ in requests})
    apart = ", ".join(f"{output} {d.apart:.1e} of {d.allowed:.1e}" for output, d in worst.items())
    return Check.of(name, problems, f"{len(requests)} requests; {apart}" if apart else f"{len(requests)} requests")


def _without(what: str, findings: Mapping[str, Any], covered: set[str]) -> list[str]:
    """A signature that nothing was tried with has not been shown to work."""
    return [f"signature {quoted(name)} has no {what}" for name in findings["signatures"] or () if name not in covered]


def _check_warmup(findings: Mapping[str, Any]) -> Check:
    if findings["load_problem"]:
        return Check.not_tried(WARM_UP, "TensorFlow does not load the export")
    problems = [findings["warmup_problem"]] if findings["warmup_problem"] else []
    for each in findings["warmup"]:
        if each["problem"]:
            problems.append(f"signature {quoted(each['signature'])}, record {each['number']}: {each['problem']}")
    if not findings["warmup_problem"]:
        problems += _without("warm-up request", findings, {each["signature"] for each in findings["warmup"]})
    return Check.of(WARM_UP, problems, f"{len(findings['warmup'])} requests")


def _check_sizes(folder: Path, manifest: Mapping[str, Any] | None) -> Check:
    if manifest is None:
        return Check.not_tried(SIZES, "the manifest cannot be read")
    sizes = manifest["sizes"]
    variables = sum(path.stat().st_size for path in (folder / "variables").glob("*") if path.is_file())
    in_variables = sum(sizes[kind] for kind in SIZE_KINDS if kind != "graph")
    problems = []
    if in_variables > variables:
        problems.append(f"the manifest has {in_variables} bytes in variables, and its files hold {variables}")
    graph = folder / SAVED_MODEL_FILE
    if graph.is_file() and graph.stat().st_size != sizes["graph"]:
        problems.append(f"{SAVED_MODEL_FILE} has {graph.stat().st_size} bytes, {sizes['graph']} in the manifest")
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    kinds = ", ".join(f"{kind.replace('_', ' ')} {_size(sizes[kind])}" for kind in SIZE_KINDS)
    return Check.of(SIZES, problems, f"{kinds}; all files {_size(total)}")


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("folder", metavar="FOLDER", help="a version, or the folder of all versions")
    parser.add_argument("--no-c-api", action="store_true", help="do not load it by TensorFlow's C API (no C compiler)")


def run(arguments: argparse.Namespace) -> int:
    """Verifies and prints; the exit code."""
    try:
        report = verify(arguments.folder, c_api=not arguments.no_c_api)
    except FileNotFoundError as error:
        print(f"FAILED {error}")
        return 1
    report.print()
    return 0 if report.passed else 1


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m savedmodels.verify", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(_main())
