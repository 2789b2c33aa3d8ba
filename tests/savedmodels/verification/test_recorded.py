"""Recorded requests are read as they were written, strings to the byte, and never by pickle."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from savedmodels.recorded import REQUESTS_FILE, load_requests, read_requests, record_requests, strings, write_requests


def _same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


def test_they_are_read_as_they_were_written(tmp_path):
    texts = np.array([[b"a\0", b""], [b"\0\0", b"\xff\xfe"]], object)
    inputs = {
        "dense": np.float32([[1.5, np.nan]]),
        "ids": np.int64([2**62, -1]),
        "k": np.int32(3),
        "texts": texts,
        "none": np.zeros([0, 3], np.int64),
        "no_texts": np.empty([0, 2], object),
        "flag": np.array([True]),
    }
    outputs = {"probability": np.float32([[0.25]]), "names": np.array(["größe"])}
    record_requests(tmp_path, {"rank": [(inputs, outputs), (inputs, {})], "embed": [({}, outputs)]})
    read = read_requests(tmp_path)
    assert list(read) == ["rank", "embed"]
    assert [len(several) for several in read.values()] == [2, 1]
    for name, array in inputs.items():
        if name == "dense":
            np.testing.assert_array_equal(read["rank"][1].inputs[name], array)
        else:
            assert _same(read["rank"][1].inputs[name], array), name
    assert read["embed"][0].outputs["names"].tolist() == ["größe".encode()]
    assert read["embed"][0].inputs == {}


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=5), max_size=6))
def test_any_strings_survive(tmp_path_factory, texts):
    array = np.empty(len(texts), object)
    array[:] = texts
    path = tmp_path_factory.mktemp("strings") / "requests.npz"
    write_requests(path, {"s": [({"x": array}, {})]})
    assert load_requests(path)["s"][0].inputs["x"].tolist() == texts


def test_the_same_requests_give_the_same_bytes(tmp_path):
    requests = {"predict": [({"ids": np.arange(3)}, {"p": np.float32([0.5])})]}
    first = record_requests(tmp_path / "a", requests).read_bytes()
    assert record_requests(tmp_path / "b", requests).read_bytes() == first


def test_numpy_reads_the_file_without_pickle(tmp_path):
    path = record_requests(tmp_path, {"predict": [({"q": np.array([b"x\0"], object)}, {"p": np.float32([0.5])})]})
    with np.load(path, allow_pickle=False) as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            "format": 1,
            "predict/0/inputs/q.bytes": [120, 0],
            "predict/0/inputs/q.offsets": [0, 2],
            "predict/0/inputs/q.shape": [1],
            "predict/0/outputs/p": [0.5],
        }


@pytest.mark.parametrize(
    ("signature", "name", "array", "message"),
    [
        ("a/b", "x", np.zeros(1), "signature 'a/b', inputs 'x': names with '/' or '.'"),
        ("a", "x.y", np.zeros(1), "inputs 'x.y': names with '/' or '.'"),
        ("a", "x", np.zeros(1, np.complex64), "a/0/inputs/x: dtype complex64 cannot be recorded"),
        ("a", "x", np.array([3, b"s"], object), r"a/0/inputs/x: element \(0,\) is a int; strings are expected"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(tmp_path, signature, name, array, message):
    with pytest.raises(ValueError, match=message):
        record_requests(tmp_path, {signature: [({name: array}, {})]})
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


STRING_ENTRIES = ("s/0/inputs/x.bytes", "s/0/inputs/x.offsets", "s/0/inputs/x.shape")
WRONG_STRINGS = [
    (np.uint8([7, 8]), np.int64(offsets), np.int64(shape))
    for offsets, shape in (
        ([0, 3], [1]),
        ([0, 2, 1, 2], [3]),
        ([1, 2], [1]),
        ([0, 2], [2]),
        ([], [0]),
        ([0, 2], [2**40, 2**40]),
    )
]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "format None is not 1"),
        ({"format": 2}, "format 2 is not 1"),
        ({"format": 1, "x": 0}, "entry 'x' is none of"),
        ({"format": 1, "s/0/between/x": 0}, "entry 's/0/between/x' is none of"),
        ({"format": 1, "s/1/inputs/x": 0}, "entry 's/1/inputs/x' comes out of order"),
        ({"format": 1, "s/0/inputs/x.shape": [1]}, None),
        ({"format": 1, "s/0/inputs/x.text": [1]}, "entry 's/0/inputs/x.text' is unknown"),
        ({"format": 1, "s/0/inputs/x.bytes": np.uint8([1])}, "entry 's/0/inputs/x' lacks its offsets and shape"),
        ({"format": 1, **dict.fromkeys(STRING_ENTRIES, 0)}, "is no tensor of strings"),
        *[
            (
                {"format": 1, **dict(zip(STRING_ENTRIES, parts, strict=True))},
                "its offsets do not fit its 2 bytes and shape",
            )
            for parts in WRONG_STRINGS
        ],
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, entries, message):
    path = tmp_path / REQUESTS_FILE
    path.parent.mkdir(parents=True)
    np.savez(path, **entries)
    if message is None:  # parts without their bytes are nobody's
        assert read_requests(tmp_path) == {}
        return
    with pytest.raises(ValueError, match=message):
        read_requests(tmp_path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "requests.npz"
    np.savez(path, format=1, **{"s/0/inputs/x": np.array([{}], object)})
    with pytest.raises(ValueError, match="cannot be read: Object arrays cannot be loaded"):
        load_requests(path)


def test_what_would_unpack_to_more_than_the_file_is_refused(tmp_path):
    write_requests(tmp_path / "r.npz", {"rank": [({"x": np.zeros(3)}, {})]})
    with zipfile.ZipFile(tmp_path / "r.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rank/1/inputs/x.npy", bytes(10**7))
    with pytest.raises(ValueError, match=r"entry 'rank/1/inputs/x\.npy' is packed, which none of ours is"):
        load_requests(tmp_path / "r.npz")


@pytest.mark.parametrize("shape", [(10**15,), (2 * 2**30,), (2**62, 2**62)])
def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path, shape):
    write_requests(tmp_path / "r.npz", {"rank": [({"x": np.zeros(3)}, {})]})
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "r.npz", "a") as archive:
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        archive.writestr("rank/1/inputs/x.npy", content)
    with pytest.raises(ValueError, match=r"r\.npz cannot be read"):
        load_requests(tmp_path / "r.npz")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"requests\.npz is missing: there are no recorded requests"):
        read_requests(tmp_path)


def test_strings_are_bytes():
    assert strings(["a", b"b"]).tolist() == [b"a", b"b"]
    assert strings(np.array([["ü"]])).tolist() == [["ü".encode()]]
