"""Arrays from files of anyone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from savedmodels.recorded import load_requests
from tfdlrm.array_files import read_array, read_arrays
from tfdlrm.data.trace.profile import load_ids
from tfdlrm.embeddings.checkpoint import DamagedCheckpointError
from tfdlrm.training.checkpoint_folder import MANIFEST_FILE, verify_folder
from tfdlrm.training.model_dir import ModelDir
from tfdlrm.training.model_state import _load_arrays
from tfdlrm.training.run_state import RunState


def npy(shape: tuple[int, ...], values: bytes = b"", descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return headed(header.encode()) + values


def headed(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "array", [np.arange(5), np.zeros((0, 3)), np.asfortranarray(np.ones((2, 3), np.float32)), np.array(7)]
)
def test_arrays_come_back(tmp_path: Path, array: np.ndarray, mapped: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy", mapped=mapped)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    np.savez(tmp_path / "a.npz", x=array, **{"y/z w": array})
    arrays = read_arrays(tmp_path / "a.npz")
    assert list(arrays) == ["x", "y/z w"]
    np.testing.assert_array_equal(arrays["y/z w"], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x93NUMPY\x01", "cannot be read"),
        (b"text", "cannot be read"),
        (npy((10**13,)), r"its bytes are no array of shape \(10000000000000,\)"),
        (npy((2**62, 2**62)), "its bytes are no array of shape"),
        (npy((2**32, 2**32), descr="<i8"), "its bytes are no array of shape"),
        (npy((2,), b"x"), "its bytes are no array of shape"),
        (npy((0,), descr="|O"), "Object arrays cannot be loaded"),
        (npy((2,), b"xy").replace(b"(2,)", b"exit"), "cannot be read"),
        (b"\x93NUMPY\x07\x00" + b" " * 200, r"version \(7, 0\)"),
        (npy((10**22,), descr="|V0"), "its bytes are no array of shape"),
        (npy((0, 10**23), descr="<i8"), "its bytes are no array of shape"),
        # what Python's parser raises, and not as a ValueError
        (headed(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,\n"), "its header is none that NumPy writes"),
        (headed(b"{'descr': (), 'fortran_order': False, 'shape': (1,), }\n"), "its header is none that NumPy writes"),
        (headed(b"{1: 2, 'a': 3}\n"), "its header is none that NumPy writes"),
        (headed(b"{[]: 1}\n"), "its header is none that NumPy writes"),
        (headed(b"-" * 9000 + b"1\n"), "its header is none that NumPy writes"),
        (headed(b" " * 20_000), "its header is none that NumPy writes"),
    ],
)
def test_what_is_no_array_is_refused_in_both_kinds_of_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_array(tmp_path / "a.npy")
    assert "a.npy" in str(error.value)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=message) as error:
        read_arrays(tmp_path / "a.npz")
    assert "a.npz" in str(error.value)


def test_packed_doubled_and_cut_archives_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", x=np.zeros(10**6))
    with pytest.raises(ValueError, match=r"packed\.npz cannot be read: entry 'x\.npy' is packed"):
        read_arrays(tmp_path / "packed.npz")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("x.npy", npy((1,), b"a"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy((1,), b"b"))
    with pytest.raises(ValueError, match="entry 'x' is there twice"):
        read_arrays(tmp_path / "twice.npz")
    np.savez(tmp_path / "locked.npz", x=np.zeros(1))
    data = bytearray((tmp_path / "locked.npz").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # says that it is encrypted
    data[6] |= 1
    (tmp_path / "locked.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"locked\.npz cannot be read: .*encrypted"):
        read_arrays(tmp_path / "locked.npz")
    with pytest.raises(ValueError, match=r"locked\.npz cannot be read: .*encrypted.*Export the model again"):
        load_requests(tmp_path / "locked.npz")
    np.savez(tmp_path / "cut.npz", x=np.zeros(100))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"cut\.npz cannot be read"):
        read_arrays(tmp_path / "cut.npz")


def test_who_reads_arrays_refuses_them(tmp_path: Path) -> None:
    (tmp_path / "ids.npy").write_bytes(npy((10**13,)))
    with pytest.raises(ValueError, match=r"ids\.npy cannot be read"):
        load_ids(tmp_path / "ids.npy")
    np.savez_compressed(tmp_path / "variables.npz", x=np.zeros(10))
    with pytest.raises(DamagedCheckpointError, match=r"variables\.npz cannot be read: entry 'x\.npy' is packed"):
        _load_arrays(tmp_path / "variables.npz")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\x1b[2J"])
def test_names_in_a_checkpoints_manifest_stay_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("x")
    folder = tmp_path / "step-1"
    folder.mkdir()
    (folder / MANIFEST_FILE).write_text(json.dumps({"format": 1, "files": {name: {"bytes": 1}}}))
    with pytest.raises(DamagedCheckpointError, match="is no name of a file in it"):
        verify_folder(folder)
    (folder / MANIFEST_FILE).write_text(json.dumps({"format": 1, "files": {"manifest.json": 5}}))
    with pytest.raises(DamagedCheckpointError, match="bytes, 5 were written"):
        verify_folder(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"checkpoint": "../x"}', "3", '{"step": 1, "no": 2}'])
def test_a_damaged_best_model_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(ValueError, match=r"best\.json: not what a run writes"):
        ModelDir(tmp_path).read_best()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("step", value) for value in ("x", None, -7, 1.5, 2**70)),
        *(
            (name, value)
            for name in ("epoch", "batch", "batches_per_epoch", "rows", "seed")
            for value in (None, "x", -1)
        ),
        *(("elapsed_seconds", value) for value in ("x", -1.0, float("nan"))),
        *(("unknown_ids", value) for value in ({"user": "q"}, [1], "x")),
        *(
            ("best", value)
            for value in ("x", {}, {"step": 1, "epoch": 0, "monitor": "auc", "value": "x", "checkpoint": "c"})
        ),
        ("resumable", "no"),
        ("batch", 1),  # of an epoch of none
        ("books", {"read": "x"}),
    ],
)
def test_a_state_that_no_run_can_have_is_refused_by_field(field: str, value: object) -> None:
    assert RunState.from_dict(RunState(step=3).to_dict()).step == 3
    with pytest.raises(ValueError, match=f"{field}|best"):
        RunState.from_dict({**RunState().to_dict(), field: value})
