"""The manifest holds what was given and what was found, and refuses what is not whole."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import tensorflow as tf

import tfdlrm
from savedmodels.manifest import MANIFEST_FILE, check_files, read_manifest, write_manifest
from savedmodels.verify import verify
from tests.savedmodels.verification.tiny_exports import INFO


def test_it_holds_what_was_given_and_what_was_found(pristine):
    manifest = read_manifest(pristine)
    assert (manifest["format"], manifest["version"]) == (1, 1)
    assert manifest["tfdlrm_version"] == tfdlrm.__version__
    assert manifest["tensorflow_version"] == tf.__version__
    assert manifest["quantization"] == {"user": "none"}
    assert manifest["rows"] == {"user": 12}
    assert manifest["metrics"] == {"auc": 0.75, "gauc": None}  # JSON has no NaN
    assert manifest["tolerance"] == {}
    assert manifest["sizes"] == {**INFO["sizes"], "graph": (pristine / "saved_model.pb").stat().st_size}
    assert set(manifest["signatures"]) == {"serving_default", "predict", "shout"}
    assert manifest["signatures"]["predict"]["inputs"]["user"] == {"dtype": "int64", "shape": [None]}
    assert manifest["signatures"]["predict"]["inputs"]["dense"] == {"dtype": "float32", "shape": [None, 2]}
    assert manifest["signatures"]["shout"]["outputs"]["again"] == {"dtype": "string", "shape": [None, 2]}


def test_it_has_the_digest_of_every_other_file_in_order(pristine):
    files = read_manifest(pristine)["files"]
    present = {path.relative_to(pristine).as_posix() for path in pristine.rglob("*") if path.is_file()}
    assert set(files) == present - {MANIFEST_FILE.as_posix()}
    assert list(files) == sorted(files)
    for name, entry in files.items():
        data = (pristine / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_the_same_export_gives_the_same_bytes(version):
    before = (version / MANIFEST_FILE).read_bytes()
    write_manifest(version, info=INFO)
    assert (version / MANIFEST_FILE).read_bytes() == before
    assert list((version / MANIFEST_FILE).parent.glob(".*")) == []


def test_an_export_that_others_number_may_be_named_by_any_number(version):
    write_manifest(version, info={**INFO, "version": None})
    moved = version.rename(version.with_name("1795953812"))
    assert read_manifest(moved)["version"] is None
    assert verify(moved, c_api=False).passed


def test_further_keys_are_kept_and_numbers_of_numpy_are_numbers(version):
    info = {**INFO, "model_name": "clicks", "row_errors": {"user": np.float32(0.5)}, "rows": {"user": np.int64(12)}}
    write_manifest(version, info=info)
    manifest = read_manifest(version)
    assert (manifest["model_name"], manifest["row_errors"], manifest["rows"]) == ("clicks", {"user": 0.5}, {"user": 12})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version=0 is no whole number from 1"),
        ({"version": 2**63}, "version=9223372036854775808 is no whole number from 1 to 2"),
        ({"metrics": {"\x1b[2J": 1.0}}, r"metrics: '\\x1b\[2J' is no name"),
        ({"version": True}, "version=True is no whole number"),
        ({"rows": {"user": -1}}, "rows of table 'user': -1 is no count"),
        ({"rows": None}, "rows=None is no mapping"),
        ({"quantization": {"user": 8}}, "quantization of table 'user': 8 is no text"),
        ({"sizes": {"rows": 1, "dense_weights": 1}}, "sizes of 'vocabularies': None is no number of bytes"),
        ({"metrics": {"auc": "0.7"}}, "metrics of 'auc': '0.7' is no number"),
        ({"tolerance": {"logit": -0.1}}, "tolerance of 'logit': -0.1 is no number from 0 to 0.5"),
        ({"tolerance": {"probability": 1e300}}, "tolerance of 'probability': 1e\\+300 is no number from 0 to 0.5"),
        ({"tolerance": {"logit": float("inf")}}, "tolerance of 'logit': None is no number from 0 to 0.5"),
        ({"rows": {}}, "quantization has .*, and rows no table"),
        ({"metrics": {"auc": 10**400}}, "metrics of 'auc': an integer of 1329 bits is no number"),
        ({"files": {}}, "files is found by write_manifest itself. Leave it out."),
        ({"extra": {1, 2}}, "info holds what JSON cannot"),
    ],
)
def test_wrong_info_is_refused_and_nothing_is_written(version, change, message):
    (version / MANIFEST_FILE).unlink()
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        write_manifest(version, info={**INFO, **change})
    assert list((version / MANIFEST_FILE).parent.glob("*manifest*")) == []


def test_a_folder_without_a_graph_has_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"saved_model\.pb is missing"):
        write_manifest(tmp_path, info=INFO)


def _rewrite(version, change):
    """Changes a manifest and gives it the checksum that fits, as a defect of the writer would."""
    path = version / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    del manifest["checksum"]
    change(manifest)
    text = json.dumps(manifest, sort_keys=True).encode()
    path.write_text(json.dumps({**manifest, "checksum": hashlib.sha256(text).hexdigest()}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(format=2), "has format 2, and this version reads 1"),
        (
            lambda manifest: manifest["files"].update({"../x": manifest["files"]["saved_model.pb"]}),
            "'../x' is not below",
        ),
        (lambda manifest: manifest["files"].update({"/x": manifest["files"]["saved_model.pb"]}), "'/x' is not below"),
        (lambda manifest: manifest["files"].update(x={"bytes": 3}), "file 'x' has no bytes and sha256"),
        (lambda manifest: manifest.pop("signatures"), "signatures=None is no mapping"),
    ],
)
def test_a_manifest_with_wrong_fields_is_refused(version, change, message):
    _rewrite(version, change)
    with pytest.raises(ValueError, match=message):
        read_manifest(version)


@pytest.mark.parametrize("text", ["[]", "3", "{}", ""])
def test_what_is_no_manifest_is_refused(version, text):
    (version / MANIFEST_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json (has format None|is no JSON)"):
        read_manifest(version)


def test_a_link_to_nothing_is_told(version):
    (version / "variables" / "link").symlink_to(version / "nowhere")
    assert check_files(version) == ["variables/link is a link to nothing"]


def test_what_is_neither_file_nor_folder_is_told_and_not_opened(version):
    extra = version / "assets.extra"
    for name, target in (("passwd", "/etc/passwd"), ("nowhere", "/nowhere"), ("loop", "..")):
        (extra / name).symlink_to(target)
    os.mkfifo(extra / "fifo")
    assert sorted(check_files(version)) == [
        "assets.extra/fifo is a device, a pipe or a socket, and no file",
        "assets.extra/loop is a link to a folder, or out of this one",
        "assets.extra/nowhere is a link to a folder, or out of this one",
        "assets.extra/passwd is a link to a folder, or out of this one",
    ]


def test_names_that_would_move_the_cursor_are_quoted(version):
    (version / "\x1b[2Jall checks passed\n").write_text("")
    assert check_files(version) == [r"'\x1b[2Jall checks passed\n' is not in the manifest: it was added later"]


def test_a_manifest_of_many_brackets_is_no_json(version):
    (version / MANIFEST_FILE).write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"manifest\.json is no JSON"):
        read_manifest(version)
