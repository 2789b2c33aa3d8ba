"""Each way in which an export can be broken gives the complaint that names what is broken."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from savedmodels.manifest import MANIFEST_FILE, check_files, write_manifest
from savedmodels.recorded import REQUESTS_FILE, read_requests, record_requests
from savedmodels.verification.report import Result
from savedmodels.verify import verify
from savedmodels.warmup import WARMUP_FILE, write_warmup
from tests.savedmodels.verification.tiny_exports import INFO

DATA, INDEX = Path("variables/variables.data-00000-of-00001"), Path("variables/variables.index")
SAVED_MODEL = Path("saved_model.pb")
ROWS = "rows/.ATTRIBUTES/VARIABLE_VALUE"


def remove(path):
    return lambda folder: (folder / path).unlink()


def flip(path, at):
    def change(folder):
        data = bytearray((folder / path).read_bytes())
        data[at] ^= 0x40
        (folder / path).write_bytes(data)

    return change


def cut(path):
    return lambda folder: os.truncate(folder / path, (folder / path).stat().st_size // 2)


def add(path):
    return lambda folder: (folder / path).write_bytes(b"x")


def edit_graph(edit):
    def change(folder):
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString((folder / SAVED_MODEL).read_bytes())
        edit(saved.meta_graphs[0])
        (folder / SAVED_MODEL).write_bytes(saved.SerializeToString())

    return change


def make_foreign(meta_graph):
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "ResourceGather":
                node.op = "ForeignRows"


def rerecord(change, *, info=INFO):
    """Other requests under a manifest that knows them: only an answer can tell."""

    def apply(folder):
        requests = read_requests(folder)
        change(requests)
        record_requests(folder, requests)
        write_manifest(folder, info=info)

    return apply


def rewarm(change):
    def apply(folder):
        requests = read_requests(folder)
        change(requests)
        write_warmup(folder, "tiny", requests)
        write_manifest(folder, info=INFO)

    return apply


def shift_probability(requests):
    requests["predict"][1].outputs["probability"][2, 0] += 0.25


def use_unknown_user(requests):
    requests["predict"][0].inputs["user"][0] = 1000


def edit_manifest(old, new):
    def change(folder):
        text = (folder / MANIFEST_FILE).read_text()
        assert old in text
        (folder / MANIFEST_FILE).write_text(text.replace(old, new))

    return change


ANOTHER_ANSWER = (
    r"signature 'predict', request 1: output 'probability' is 0\.25 off at \[2, 0\]: \S+, recorded \S+; "
    r"1e-06 is allowed$"
)

# What is done to the folder; check -> what one of its problems has to match from its beginning. Other checks pass.
# files that no export has: nothing of it is loaded
NOTHING_ELSE = dict.fromkeys(
    ("ops", "tensors", "signatures", "fresh process", "C API", "warm-up", "sizes"), "the files are none of an export"
)
CORRUPTIONS = {
    "data missing": (
        remove(DATA),
        {
            "files": rf"{DATA} is missing$",
            "tensors": rf"tensor '{ROWS}' cannot be read: ",
            "fresh process": "TensorFlow does not load it: ",
            "C API": "replay ended with code 1: the SavedModel cannot be loaded: ",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "data flipped": (
        flip(DATA, 20),
        {
            "files": rf"{DATA} was changed: its SHA-256 is not the manifest's$",
            "tensors": rf"tensor '{ROWS}' cannot be read: .*[Cc]hecksum",
            "fresh process": "TensorFlow does not load it: .*[Cc]hecksum",
            "C API": "replay ended with code 1: the SavedModel cannot be loaded: .*[Cc]hecksum",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "data truncated": (
        cut(DATA),
        {
            "files": rf"{DATA} is truncated: \d+ of \d+ bytes$",
            "tensors": r"tensor '.*' cannot be read: ",
            "fresh process": "TensorFlow does not load it: ",
            "C API": "replay ended with code 1: the SavedModel cannot be loaded: ",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "index truncated": (
        cut(INDEX),
        {
            "files": rf"{INDEX} is truncated: \d+ of \d+ bytes$",
            "tensors": rf"{INDEX} cannot be read: ",
            "fresh process": "TensorFlow does not load it: ",
            "C API": "replay ended with code 1: the SavedModel cannot be loaded: ",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "index missing": (
        remove(INDEX),
        {
            "files": rf"{INDEX} is missing$",
            "tensors": rf"{INDEX} is missing$",
            "fresh process": "TensorFlow does not load it: ",
            "C API": r"(replay ended with code 1|signature .* request \d+: )",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "graph missing": (
        remove(SAVED_MODEL),
        {
            "files": "saved_model.pb is missing$",
            "ops": r".*/1/saved_model.pb is missing. Export the model again.$",
            "signatures": r".*/1/saved_model.pb is missing. Export the model again.$",
            "fresh process": "saved_model.pb is missing$",
            "C API": r".*/1/saved_model.pb is missing. Export the model again.$",
            "warm-up": "TensorFlow does not load the export",
        },
    ),
    "graph truncated": (
        cut(SAVED_MODEL),
        {
            "files": r"saved_model.pb is truncated: \d+ of \d+ bytes$",
            "ops": r".*/1/saved_model.pb cannot be read: ",
            "signatures": r".*/1/saved_model.pb cannot be read: ",
            "fresh process": "TensorFlow does not load it: ",
            "C API": r".*/1/saved_model.pb cannot be read: ",
            "warm-up": "TensorFlow does not load the export",
            "sizes": r"saved_model.pb has \d+ bytes, \d+ in the manifest$",
        },
    ),
    "signature missing": (
        edit_graph(lambda graph: graph.signature_def.pop("predict")),
        {
            "files": r"saved_model.pb is truncated: \d+ of \d+ bytes$",
            "signatures": "signature 'predict' is missing$",
            # and not "fresh process": Python's loader reads its own record of the signatures
            "C API": "signature 'predict', request 0: the graph has no 'predict'$",
            "sizes": r"saved_model.pb has \d+ bytes, \d+ in the manifest$",
        },
    ),
    "output missing": (
        edit_graph(lambda graph: graph.signature_def["predict"].outputs.pop("logit")),
        {
            "files": r"saved_model.pb is truncated: \d+ of \d+ bytes$",
            "signatures": "signature 'predict': output 'logit' is missing$",
            "C API": "signature 'predict', request 0: output 'logit' is missing$",
            "sizes": r"saved_model.pb has \d+ bytes, \d+ in the manifest$",
        },
    ),
    "foreign op": (
        edit_graph(make_foreign),
        {
            "files": r"saved_model.pb is truncated: \d+ of \d+ bytes$",
            "ops": "op 'ForeignRows' is not one of stock TensorFlow$",
            "fresh process": "TensorFlow does not load it: .*ForeignRows",
            "C API": "replay ended with code 1: the SavedModel cannot be loaded: .*ForeignRows",
            "warm-up": "TensorFlow does not load the export",
            "sizes": r"saved_model.pb has \d+ bytes, \d+ in the manifest$",
        },
    ),
    "file added": (add("assets.extra/note.txt"), {"files": "assets.extra/note.txt is not in the manifest"}),
    "half written": (
        remove(MANIFEST_FILE),
        {
            "files": rf".*{MANIFEST_FILE} is missing: the export was not finished. Export the model again.$",
            "sizes": "the manifest cannot be read",
        },
    ),
    "manifest changed": (
        edit_manifest('"auc": 0.75', '"auc": 0.95'),
        {
            "files": rf".*{MANIFEST_FILE} was changed since it was written: its checksum does not fit. Export the",
            **NOTHING_ELSE,
        },
    ),
    "manifest cut": (
        cut(MANIFEST_FILE),
        {"files": rf".*{MANIFEST_FILE} is no JSON: .* Restore the file, or make it again.$", **NOTHING_ELSE},
    ),
    "warm-up flipped": (
        flip(WARMUP_FILE, 40),
        {
            "files": rf"{WARMUP_FILE} was changed: its SHA-256 is not the manifest's$",
            "warm-up": rf".*{WARMUP_FILE}: record 0 cannot be read: .*corrupted record",
        },
    ),
    "warm-up missing": (
        remove(WARMUP_FILE),
        {
            "files": rf"{WARMUP_FILE} is missing$",
            "warm-up": rf".*{WARMUP_FILE} is missing: there are no warm-up requests. Export the model again.$",
        },
    ),
    "warm-up of an unknown id": (
        rewarm(use_unknown_user),
        {"warm-up": r"signature 'predict', record 1: .*1000 is not in \[0, 12\)"},
    ),
    "warm-up of too few signatures": (
        rewarm(lambda requests: requests.pop("shout")),
        {"warm-up": "signature 'shout' has no warm-up request$"},
    ),
    "a graph of gigabytes": (
        lambda version: os.truncate(version / "saved_model.pb", 2**33),
        {"files": r"saved_model.pb has 8589934592 bytes, \d+ in the manifest$", **NOTHING_ELSE},
    ),
    "requests cut": (
        cut(REQUESTS_FILE),
        {
            "files": rf".*{REQUESTS_FILE} cannot be read: .* Export the model again.$",
            **NOTHING_ELSE,
        },
    ),
    "requests of too few signatures": (
        rerecord(lambda requests: requests.pop("shout")),
        {
            "fresh process": "signature 'shout' has no recorded request$",
            "C API": "signature 'shout' has no recorded request$",
        },
    ),
    "another answer": (
        rerecord(shift_probability),
        {"fresh process": ANOTHER_ANSWER, "C API": ANOTHER_ANSWER},
    ),
    "a request that fails": (
        rerecord(use_unknown_user),
        dict.fromkeys(("fresh process", "C API"), r"signature 'predict', request 0: .*1000 is not in \[0, 12\)"),
    ),
    "another version": (
        lambda folder: write_manifest(folder, info={**INFO, "version": 7}),
        {"files": "the folder is named 1, and the manifest is of version 7$"},
    ),
    "sizes too large": (
        lambda folder: write_manifest(folder, info={**INFO, "sizes": {**INFO["sizes"], "rows": 10**6}}),
        {"sizes": r"the manifest has 1000008 bytes in variables, and its files hold \d+$"},
    ),
}


@pytest.mark.usefixtures("in_this_process", "program")
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_complaint_names_what_is_broken(version, name):
    corrupt, expected = CORRUPTIONS[name]
    corrupt(version)
    report = verify(version, c_api="C API" in expected)
    assert not report.passed
    fine = (Result.PASSED, Result.LEFT_OUT)
    assert {check.name for check in report.checks if check.result not in fine} == set(expected)
    for check, pattern in expected.items():
        told = [*report[check].problems, report[check].detail]
        assert any(re.match(pattern, problem) for problem in told), (check, told)
    assert all("\n" not in problem for problem in report.problems)


def test_a_tolerance_of_the_manifest_allows_what_it_says_and_no_more(version, in_this_process):
    rerecord(shift_probability, info={**INFO, "tolerance": {"probability": 0.26}})(version)
    report = verify(version, c_api=False)
    assert report.passed, report.problems
    assert "probability 2.5e-01 of 2.6e-01" in report["fresh process"].detail
    rerecord(lambda requests: None, info={**INFO, "tolerance": {"probability": 0.24}})(version)
    assert not verify(version, c_api=False).passed


def test_every_changed_byte_of_a_small_file_is_noticed(version):
    path = version / REQUESTS_FILE
    data = path.read_bytes()
    for at in np.linspace(0, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert check_files(version) == [f"{REQUESTS_FILE.as_posix()} was changed: its SHA-256 is not the manifest's"]
    path.write_bytes(data)
    assert check_files(version) == []
