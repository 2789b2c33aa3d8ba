"""A fresh process with plain TensorFlow that looks at an export and answers requests with it.

It cannot import this repository's packages: what it needs of them, three files that import nothing of ours, it loads
by their paths. All that needs TensorFlow happens here, so that `verify` does not import it itself. The process writes

    findings.json   what it found, as `examine` returns it
    answers.npz     <number of the request>/0/outputs/<name>, as `savedmodels.recorded` writes
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

OWN_PACKAGES = ("tfdlrm", "savedmodels", "pipelines")
SELF_CONTAINED = ("graph_ops", "recorded", "warmup")
FINDINGS_FILE = "findings.json"
ANSWERS_FILE = "answers.npz"
TIMEOUT_SECONDS = 3600.0  # a model of 100 GB is read in about that from a slow disk
_ERROR_CHARACTERS = 500


def start(version_folder: Path, results: Path) -> subprocess.Popen[str]:
    """Starts the process; `finish` waits for it."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), str(version_folder.resolve()), str(results)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], results: Path) -> dict[str, Any]:
    """The findings.

    Raises:
        RuntimeError: the process ended without them; the message says how.
    """
    try:
        _, notes = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the fresh process did not end within {TIMEOUT_SECONDS:.0f} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    path = results / FINDINGS_FILE
    if process.returncode != 0 or not path.is_file():
        last = (notes.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the fresh process ended with code {process.returncode}: {last}")
    findings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return findings


def examine(version_folder: Path, results: Path) -> dict[str, Any]:
    """Looks at an export, and answers its recorded and its warm-up requests.

    Returns:
        `signatures`, `foreign_ops`: of the graph, or None; `graph_problem`: why.
        `tensors`: [name, dtype, shape, bytes] of each variable; `tensor_problems`: lines.
        `load_problem`: why TensorFlow does not load it, or None.
        `requests`: `signature`, `number` and `problem` of each recorded request; `requests_problem`.
        `warmup`: the same of each warm-up request; `warmup_problem`.
    """
    graph_ops, recorded, warmup = (_module(name) for name in SELF_CONTAINED)
    findings: dict[str, Any] = {"signatures": None, "foreign_ops": None, "graph_problem": None}
    try:
        findings["signatures"] = graph_ops.signatures(version_folder)
        findings["foreign_ops"] = graph_ops.foreign_ops(version_folder)
    except (OSError, ValueError) as error:
        findings["graph_problem"] = _line(error)
    findings |= _tensors(version_folder)
    signatures, findings["load_problem"] = _load(version_folder)
    if findings["load_problem"]:
        findings["tensor_problems"] += _damaged(version_folder, findings["tensors"])

    findings |= {"requests": [], "requests_problem": None, "warmup": [], "warmup_problem": None}
    answers: dict[str, Any] = {}
    try:
        requests = recorded.read_requests(version_folder)
    except (OSError, ValueError) as error:
        findings["requests_problem"] = _line(error)
        requests = {}
    for signature, number, request in _numbered(requests):
        outputs, problem = _call(signatures, signature, request.inputs)
        if outputs is not None:
            answers[str(len(findings["requests"]))] = [({}, outputs)]
        findings["requests"].append({"signature": signature, "number": number, "problem": problem})
    recorded.write_requests(results / ANSWERS_FILE, answers)
    try:
        for number, request in enumerate(warmup.read_warmup(version_folder)):
            _, problem = _call(signatures, request.signature, request.inputs)
            findings["warmup"].append({"signature": request.signature, "number": number, "problem": problem})
    except (OSError, ValueError) as error:
        findings["warmup_problem"] = _line(error)
    return findings


def _numbered(requests: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    for signature, several in requests.items():
        for number, request in enumerate(several):
            yield signature, number, request


def _module(name: str) -> Any:
    path = Path(__file__).resolve().parents[1] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"verification_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tensors(version_folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    found: dict[str, Any] = {"tensors": [], "tensor_problems": []}
    index = version_folder / "variables" / "variables.index"
    if not index.is_file():
        found["tensor_problems"].append("variables/variables.index is missing")
        return found
    try:
        reader = tf.train.load_checkpoint(str(index.with_suffix("")))
        dtypes = reader.get_variable_to_dtype_map()
        for name, shape in sorted(reader.get_variable_to_shape_map().items()):
            num_bytes = int(np.prod(shape, dtype=object)) * dtypes[name].size
            found["tensors"].append([name, dtypes[name].name, list(shape), num_bytes])
    except Exception as error:  # TensorFlow has several classes for what is wrong with a file
        found["tensor_problems"].append(f"variables/variables.index cannot be read: {_line(error)}")
    return found


def _load(version_folder: Path) -> tuple[Any, str | None]:
    import tensorflow as tf

    if not (version_folder / "saved_model.pb").is_file():
        return {}, "saved_model.pb is missing"
    try:
        loaded = tf.saved_model.load(str(version_folder))
    except Exception as error:  # whatever a file brings, it is told
        return {}, f"TensorFlow does not load it: {_line(error)}"
    # the functions live as long as what was loaded
    loaded.signatures.owner = loaded
    return loaded.signatures, None


def _damaged(version_folder: Path, tensors: list[Any]) -> list[str]:
    """Which variables cannot be read: loading names none."""
    import tensorflow as tf

    problems = []
    for name, *_ in tensors:
        try:
            tf.train.load_variable(str(version_folder / "variables" / "variables"), name)
        except Exception as error:
            problems.append(f"tensor {name!r} cannot be read: {_line(error)}")
    return problems


def _call(
    signatures: Any, name: str, inputs: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray] | None, str | None]:
    import tensorflow as tf

    if name not in signatures:
        return None, f"signature {name!r} is missing"
    try:
        tensors = {
            each: tf.constant(array, tf.string if array.dtype.kind in "OSU" else None) for each, array in inputs.items()
        }
        outputs = {each: _array(tensor) for each, tensor in signatures[name](**tensors).items()}
    except Exception as error:
        return None, _line(error)
    return outputs, None


def _array(tensor: Any) -> np.ndarray:
    import tensorflow as tf

    if tensor.dtype != tf.string:
        return np.asarray(tensor.numpy())
    result = np.empty(tensor.shape, object)
    result[...] = tensor.numpy()
    return result


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _ERROR_CHARACTERS else text[:_ERROR_CHARACTERS] + " ..."


def _main() -> int:
    version_folder, results = Path(sys.argv[1]), Path(sys.argv[2])
    for package in OWN_PACKAGES:
        sys.modules[package] = None  # type: ignore[assignment]  # importing it is an error from here on
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    findings = examine(version_folder, results)
    (results / FINDINGS_FILE).write_text(json.dumps(findings), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
