"""A base and deltas give the later version byte for byte, over random updates; anything else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from savedmodels.delta import apply_delta, export_delta
from savedmodels.export import ExportOptions, export
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
        (narrow, "have shape"),
        (name, r"'\.\./\.\./x' is not the name of an array"),
        (lambda delta: (delta / "delta.json").write_text("{"), "is no JSON"),
        (lambda delta: (delta / "delta.json").write_text("{}"), "is no description of a delta"),
    ]:
        with pytest.raises(ValueError, match=message):
            apply_delta(versions / "1", spoil(change), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="there is no delta"):
        apply_delta(versions / "1", tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_versions_of_another_form_have_no_delta(versions, tmp_path):
    export(build(), tmp_path, spec=SPEC, options=ExportOptions(quantize="int8"))
    with pytest.raises(ValueError, match=r"array 'stack_0_rows_part_0' is .*another model, vocabulary, quantization"):
        export_delta(versions / "1", tmp_path / "1", tmp_path / "delta")
    with pytest.raises(FileExistsError, match="is there already"):
        export_delta(versions / "1", versions / "2", versions / "delta")
    assert not (tmp_path / "delta").exists()
