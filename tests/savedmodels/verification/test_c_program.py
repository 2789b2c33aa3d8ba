"""The C program answers as the model does, and believes nothing in its job file."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from savedmodels.graph_ops import signatures
from savedmodels.recorded import read_requests
from savedmodels.verification import c_program
from savedmodels.verification.job_file import JobRequest, decode_answers, encode_job

pytestmark = pytest.mark.multiprocess
SANITIZERS = ("-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FUZZ_ROUNDS = 1000


@pytest.fixture(scope="module")
def jobs(pristine) -> list[JobRequest]:
    """Every recorded request, by the names of the graph."""
    of = signatures(pristine)
    return [
        JobRequest(
            {of[name]["inputs"][each]["tensor"]: array for each, array in request.inputs.items()},
            [of[name]["outputs"][each]["tensor"] for each in request.outputs],
        )
        for name, several in read_requests(pristine).items()
        for request in several
    ]


def test_it_answers_as_the_model_does(program, pristine, jobs):
    answers = c_program.replay(program, pristine, jobs)
    recorded = [request for several in read_requests(pristine).values() for request in several]
    for request, outputs in zip(recorded, answers, strict=True):
        for array, expected in zip(outputs, request.outputs.values(), strict=True):
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            if array.dtype == object:
                assert array.tolist() == expected.tolist()
            else:
                np.testing.assert_allclose(array, expected, rtol=0, atol=1e-6)  # the order of a few sums


def test_a_request_that_the_model_refuses_does_not_end_the_others(program, pristine, jobs):
    ids = next(name for name in jobs[1].feeds if "user" in name)
    wrong = JobRequest({**jobs[1].feeds, ids: np.int64([99])}, jobs[1].fetches)
    first, second = c_program.replay(program, pristine, [wrong, jobs[1]])
    assert "99 is not in [0, 12)" in first
    assert len(second) == 2


@pytest.mark.parametrize(
    ("request_made", "message"),
    [
        (JobRequest({"nowhere:0": np.int64([1])}, []), "the graph has no operation 'nowhere'"),
        (JobRequest({}, ["predict_user:3"]), "operation 'predict_user' has 1 outputs, and 3 is asked for"),
        (JobRequest({"predict_user:0": np.zeros([1] * 9)}, []), "a tensor of 9 dimensions, at most 8 are read"),
    ],
)
def test_a_job_that_does_not_fit_the_graph_is_refused(program, pristine, request_made, message):
    with pytest.raises(c_program.ProgramError, match=f"replay ended with code 1: .*{message}"):
        c_program.replay(program, pristine, [request_made])


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (b"", "the job file ends too early: 8 bytes more are needed, 0 are left"),
        (b"TFDLJOB2" + bytes(4), "the job file does not begin with TFDLJOB1"),
        (encode_job([]) + b"x", "the job file has 1 bytes after its last request"),
        (b"TFDLJOB1" + struct.pack("<II", 1, 2**32 - 1), "the job file has a request of 4294967295 feeds"),
        (b"TFDLJOB1" + struct.pack("<III", 1, 1, 2**31), "a text of 2147483648 bytes, 0 are left"),
    ],
)
def test_a_job_that_is_not_whole_is_refused(program, pristine, tmp_path, job, message):
    (tmp_path / "job").write_bytes(job)
    with pytest.raises(c_program.ProgramError, match=message):
        c_program.run_program(program, pristine, tmp_path / "job", tmp_path / "answers")


def test_it_frees_everything_and_stays_in_bounds_whatever_the_job(pristine, jobs, tmp_path):
    """Under the address, leak and undefined-behaviour sanitizers, which end the process at the first fault."""
    fuzz = tmp_path / "fuzz"
    flags = (*SANITIZERS, f"-I{c_program.SOURCE.parent}")
    c_program.build(fuzz, c_program.compiler(), source=Path(__file__).parent / "fuzz_replay.c", flags=flags)
    (tmp_path / "job").write_bytes(encode_job(jobs))
    command = [fuzz, pristine, tmp_path / "job", str(FUZZ_ROUNDS)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    answered, refused = (int(part.split()[0]) for part in run.stdout.split(","))
    assert answered + refused == FUZZ_ROUNDS
    assert min(answered, refused) > FUZZ_ROUNDS // 20  # both ways were taken


def test_every_dtype_goes_there_and_back():
    """Job and answers have one form of tensor: what is written for the one is read as the other."""
    arrays = [np.arange(6).reshape(2, 3).astype(dtype) for dtype in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8")]
    texts = np.empty([2, 1], object)
    texts[:, 0] = b"a\0", b""
    arrays += [np.zeros([0, 4], np.float32), np.int32(7), np.array([True]), texts, texts[:0]]
    job = encode_job([JobRequest({"x:0": np.asarray(array)}, []) for array in arrays])
    head = 8 + 4
    tensors, at = [], head
    for array in arrays:
        size = len(encode_job([JobRequest({"x:0": np.asarray(array)}, [])])) - head
        tensors.append(job[at + 4 + 5 + 4 : at + size - 4])  # feeds, name, output; fetches
        at += size
    answers = b"TFDLANS1" + struct.pack("<III", 1, 0, len(arrays)) + b"".join(tensors)
    for array, read in zip(arrays, decode_answers(answers)[0], strict=True):
        assert (read.dtype, read.shape) == (np.asarray(array).dtype, np.shape(array))
        assert read.tolist() == np.asarray(array).tolist()
    for cut in range(len(answers)):
        with pytest.raises(ValueError, match="the answers end too early"):
            decode_answers(answers[:cut])
    with pytest.raises(ValueError, match="1 bytes after the last"):
        decode_answers(answers + b"x")


@pytest.mark.parametrize("name", ["user", ":0", "user:x"])
def test_a_name_that_is_none_of_a_tensor_is_refused(name):
    with pytest.raises(ValueError, match=r"<operation>:<output> is expected"):
        encode_job([JobRequest({}, [name])])


def test_the_program_is_built_once(program):
    before = program.stat().st_mtime_ns
    assert c_program.ensure_built() == program
    assert program.stat().st_mtime_ns == before


def test_a_compiler_that_fails_is_told(tmp_path, monkeypatch):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'x.c:1: error: no such thing' >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("TFDLRM_NATIVE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(c_program.ProgramError, match=r"compiler failed: x\.c:1: error: no such thing"):
        c_program.ensure_built()
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["lock"]


def test_a_machine_without_a_compiler_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("gcc") is None
    with pytest.raises(c_program.NoCompilerError, match=r"no C compiler \(gcc, cc or \$CC\). Install one"):
        c_program.ensure_built()


def test_a_program_that_is_killed_is_told(tmp_path, pristine):
    program = tmp_path / "replay"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    os.chmod(program, 0o755)
    with pytest.raises(c_program.ProgramError, match="replay ended with code -9: no message"):
        c_program.replay(program, pristine, [])
