"""A base and deltas give the later version byte for byte, over random updates; anything else is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from savedmodels.delta import apply_delta, export_delta
from savedmodels.export import ExportOptions, export
from savedmodels.manifest import file_entry
from tests.savedmodels.small_model import SPEC, build


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def update(model, random) -> int:
    """Changes random rows of random tables, and a dense weight; the number of rows changed."""
    changed = 0
    for table, size in SPEC.vocabulary_sizes.items():
        for row in random.choice(size, random.integers(0, min(size, 4)), replace=False).tolist():
            values = model.embeddings.tables.rows(table, row, row + 1)
            model.embeddings.tables.assign_rows(table, values + float(random.normal()), row)
            changed += 1
    weight = model.top_mlps[0].dense_layers[-1].kernel
    weight.assign(weight + 0.01)
    return changed


@pytest.mark.parametrize("quantize", ["none", "bf16", "int8", "int4"])
def test_base_and_deltas_are_the_full_export(tmp_path, quantize):
    random = np.random.default_rng(7)
    model = build()
    options = ExportOptions(quantize=quantize, part_bytes=3000)  # several parts a table
    full, applied = tmp_path / "full", tmp_path / "applied"
    export(model, full, spec=SPEC, options=options)
    shutil.copytree(full / "1", applied / "1")
    for version in range(2, 5):
        changed = update(model, random)
        export(model, full, spec=SPEC, options=options)
        delta = tmp_path / f"delta-{version}"
        found = export_delta(full / str(version - 1), full / str(version), delta)
        assert found <= changed  # a small change may round to the same codes
        assert quantize != "none" or found == changed
        assert apply_delta(applied / str(version - 1), delta, applied) == applied / str(version)
        assert contents(applied / str(version)) == contents(full / str(version))
    signature = tf.saved_model.load(str(applied / "4")).signatures["embed"]
    assert signature is not None


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    model = build()
    export(model, folder, spec=SPEC)
    update(model, np.random.default_rng(0))
    export(model, folder, spec=SPEC)
    update(model, np.random.default_rng(1))
    export(model, folder, spec=SPEC)
    export_delta(folder / "1", folder / "2", folder / "delta")
    return folder


def test_a_delta_of_another_base_is_refused(versions, tmp_path):
    with pytest.raises(ValueError, match=r"was made from version 1 with the checksum"):
        apply_delta(versions / "3", versions / "delta", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [] if (tmp_path / "out").exists() else True


def test_a_changed_delta_is_refused_and_nothing_appears(versions, tmp_path):
    def spoil(change) -> Path:
        delta = tmp_path / "spoiled"
        shutil.rmtree(delta, ignore_errors=True)
        shutil.copytree(versions / "delta", delta)
        change(delta)
        return delta

    rows = "rows/stack_0_rows_part_0"

    def other_rows(delta: Path) -> None:
        file = delta / f"{rows}.values.npy"
        np.save(file, np.load(file) ^ 1)

    def unsorted(delta: Path) -> None:
        file = delta / f"{rows}.places.npy"
        np.save(file, np.load(file)[::-1])

    def beyond(delta: Path) -> None:
        file = delta / f"{rows}.places.npy"
        np.save(file, np.load(file) + 10**6)

    def narrow(delta: Path) -> None:
        file = delta / f"{rows}.values.npy"
        np.save(file, np.load(file)[:, :-1])

    def name(delta: Path) -> None:
        description = json.loads((delta / "delta.json").read_text())
        (delta / "delta.json").write_text(json.dumps({**description, "arrays": ["../../x"]}))

    for change, message in [
        (other_rows, "do not give version 2"),
        (unsorted, "are not rows of it, in order"),
        (beyond, "are not rows of it, in order"),
        (narrow, "rows of array 'stack_0_rows_part_0' have 31 bytes and reach to row"),
        (name, r"'\.\./\.\./x' is not the name of an array"),
        (lambda delta: (delta / "delta.json").write_text("{"), "is no JSON"),
        (lambda delta: (delta / "delta.json").write_text("{}"), "is no description of a delta"),
    ]:
        with pytest.raises(ValueError, match=message):
            apply_delta(versions / "1", spoil(change), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="there is no delta"):
        apply_delta(versions / "1", tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


ROWS = "rows/stack_0_rows_part_0"


def described(**fields: object) -> Callable[[Path], object]:
    def change(delta: Path) -> None:
        file = delta / "delta.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def claimed(shape: tuple[int, ...], dtype: str = "<i8") -> Callable[[Path], object]:
    """A file of a few bytes that says it holds an array of that shape."""

    def change(delta: Path) -> None:
        header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        (delta / f"{ROWS}.places.npy").write_bytes(content)

    return change


def linked(name: str, target: str) -> Callable[[Path], object]:
    def change(delta: Path) -> None:
        path = delta / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return change


def piped(delta: Path) -> None:
    (delta / "files" / "fingerprint.pb").unlink()
    os.mkfifo(delta / "files" / "fingerprint.pb")


def cut_bundle(delta: Path) -> None:
    """As somebody does who knows of the checksums."""
    file = delta / "bundle" / "small.index"
    os.truncate(file, 60)
    bundle = json.loads((delta / "delta.json").read_text())["bundle"]
    described(bundle={**bundle, file.name: file_entry(file)})(delta)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"version {value!r}": (described(version=value), f"version={re.escape(repr(value))} is no version")
        for value in ("3", "../evil", "x/y", True, 2.5, None, 0, -4, [1])
    },
    "a version of 100 bits": (described(version=10**30), "version=1000000000000000000000000000000 is no version"),
    "a version beyond int64": (described(version=2**63), "version=9223372036854775808 is no version"),
    "a base that is a list": (described(base_version=[1]), r"base_version=\[1\] is no version"),
    "arrays that are a number": (described(arrays=5), "arrays=5 is no list of at most 100,000"),
    "too many arrays": (described(arrays=["a"] * 200_000), r"arrays=\['a', .*… is no list of at most 100,000"),
    "an array twice": (described(arrays=["a", "a"]), "arrays has a name twice"),
    "a checksum that is a number": (described(new_checksum=5), "new_checksum=5 is no checksum"),
    "many brackets": (lambda delta: (delta / "delta.json").write_text("[" * 200_000), "delta.json is no JSON"),
    "places of 8 TB": (claimed((10**12,)), r"its bytes are no array of shape \(1000000000000,\)"),
    "places of no end": (claimed((2**62, 2**62)), "places.npy cannot be read: its bytes are no array of shape"),
    "places whose size overflows to none": (claimed((2**32, 2**32)), "places.npy cannot be read: its bytes are no"),
    "places that are objects": (claimed((0,), "|O"), "places.npy cannot be read: Object arrays"),
    "places that are text": (
        lambda delta: (delta / f"{ROWS}.places.npy").write_text("hello"),
        "places.npy cannot be read",
    ),
    "values that are cut": (lambda delta: os.truncate(delta / f"{ROWS}.values.npy", 60), "values.npy cannot be read"),
    "a link to another folder": (linked("files", "/etc"), "files is a link to a folder, or out of this one"),
    "a link to another file": (
        linked("files/fingerprint.pb", "/etc/passwd"),
        "fingerprint.pb is a link to a folder, or",
    ),
    "a link to a device": (linked("files/fingerprint.pb", "/dev/zero"), "fingerprint.pb is a link to a folder, or out"),
    "a link in a circle": (linked("files/loop", ".."), "files/loop is a link to a folder"),
    "a link to nothing": (linked("files/none", "nowhere"), "files/none is a link to nothing"),
    "another version": (described(version=7), "does not give version 7: the manifest is not the new version's"),
    "an array that the base has not": (described(arrays=["nope"]), "array 'nope' is not in "),
    "data of small values that are cut": (
        lambda delta: os.truncate(delta / "bundle" / "small.data-00000-of-00001", 1),
        r"bundle: small\.data-00000-of-00001 is truncated: 1 of \d+ bytes",
    ),
    "small values that are cut": (cut_bundle, "bundle/small cannot be read: "),
    "a bundle without files": (described(bundle=5), "bundle=5 is no mapping"),
    "a bundle's file elsewhere": (described(bundle={"../x": {}}), r"file '\.\./x' is not below the folder"),
    "arrays left out": (described(arrays=[]), "lacks array '[a-z_0-9]+' of "),
    "a file of the new version that is changed": (
        lambda delta: (delta / "files" / "saved_model.pb").write_bytes(b""),
        r"does not give version 2: saved_model\.pb is truncated: 0 of \d+ bytes",
    ),
    "a pipe": (piped, "files/fingerprint.pb is a device, a pipe or a socket, and no file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_delta_of_a_stranger_is_refused_by_name(versions: Path, tmp_path: Path, kind: str) -> None:
    change, message = HOSTILE[kind]
    delta = tmp_path / "delta"
    shutil.copytree(versions / "delta", delta)
    change(delta)
    with pytest.raises(ValueError, match=message) as raised:
        apply_delta(versions / "1", delta, tmp_path / "out")
    assert len(str(raised.value)) < 700
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_versions_of_another_form_have_no_delta(versions, tmp_path):
    export(build(), tmp_path, spec=SPEC, options=ExportOptions(quantize="int8"))
    with pytest.raises(ValueError, match=r"array 'stack_0_rows_part_0' is .*another model, vocabulary, quantization"):
        export_delta(versions / "1", tmp_path / "1", tmp_path / "delta")
    with pytest.raises(FileExistsError, match="is there already"):
        export_delta(versions / "1", versions / "2", versions / "delta")
    assert not (tmp_path / "delta").exists()
