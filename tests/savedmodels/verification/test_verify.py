"""`verify` finds the version, starts a process that has nothing of ours, and says what it saw."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import savedmodels
from savedmodels import verify as verify_module
from savedmodels.export import export
from savedmodels.graph_ops import exported_ops, foreign_ops
from savedmodels.verification import c_program, fresh_process
from savedmodels.verification.report import Result
from savedmodels.verify import find_version, run, verify
from tests import architecture
from tests.savedmodels.small_model import SPEC

ROOT = Path(savedmodels.__file__).parents[1]


def _run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.multiprocess
def test_a_good_export_passes_and_the_parent_does_not_import_tensorflow(pristine, program):
    code = """
        import sys
        from savedmodels.verify import verify
        report = verify(sys.argv[1])
        report.print()
        print("parent imported", [name for name in ("tensorflow", "keras") if name in sys.modules])
    """
    process = _run_python(code, str(pristine.parent))
    lines = process.stdout.splitlines()
    assert process.returncode == 0, process.stderr
    assert lines[-2:] == [f"{pristine}: passed", "parent imported []"]
    table = {line[: line.index(" passed")].strip(): line for line in lines if " passed " in line}
    assert set(table) == {"files", "ops", "tensors", "signatures", "fresh process", "C API", "warm-up", "sizes"}
    for check in ("fresh process", "C API"):
        assert "4 requests; " in table[check]
        assert "probability" in table[check]
        assert "of 1.0e-06" in table[check]
    assert "predict, serving_default, shout" in table["signatures"]
    assert "rows 192 B, dense weights 8 B, vocabularies 0 B, graph " in table["sizes"]


@pytest.mark.multiprocess
def test_the_fresh_process_cannot_import_our_packages(pristine, tmp_path):
    """The process's own script runs here, and then tries."""
    code = f"""
        import runpy, sys
        sys.argv = ["fresh_process.py", sys.argv[1], sys.argv[2]]
        try:
            runpy.run_path({fresh_process.__file__!r}, run_name="__main__")
        except SystemExit as end:
            assert end.code == 0
        print(sorted(n for n, m in sys.modules.items() if n.split(".")[0] in {fresh_process.OWN_PACKAGES} and m))
        try:
            import tfdlrm
        except ImportError:
            print("refused")
    """
    process = _run_python(code, str(pristine), str(tmp_path))
    assert process.stdout.splitlines() == ["[]", "refused"], process.stderr
    assert {path.name for path in tmp_path.iterdir()} == {fresh_process.FINDINGS_FILE, fresh_process.ANSWERS_FILE}


def test_what_the_fresh_process_loads_imports_nothing_of_ours():
    for name in fresh_process.SELF_CONTAINED:
        tree = ast.parse((ROOT / "savedmodels" / f"{name}.py").read_text(encoding="utf-8"))
        imported = {module.split(".")[0] for _, module in architecture.imported_modules(tree)}
        assert imported.isdisjoint(fresh_process.OWN_PACKAGES), name


@pytest.mark.multiprocess
def test_an_exported_model_passes(model, tmp_path, program):
    folder = export(model, tmp_path, spec=SPEC)
    report = verify(tmp_path)
    assert report.version_folder == folder
    assert report.problems == ()
    assert report.passed
    assert foreign_ops(folder) == []
    assert "ResourceGather" in exported_ops(folder)


@pytest.mark.multiprocess
@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 9)", "raise SystemExit('out of order')"])
def test_a_process_that_ends_is_told(version, monkeypatch, tmp_path, code):
    script = tmp_path / "script.py"
    script.write_text(code)
    monkeypatch.setattr(fresh_process, "__file__", str(script))
    report = verify(version, c_api=False)
    (problem,) = report["fresh process"].problems
    number, message = (-9, "no message") if "kill" in code else (1, "out of order")
    assert problem == f"the fresh process ended with code {number}: {message}"
    assert report["ops"].result is Result.NOT_TRIED
    assert report["files"].result is Result.PASSED
    assert not report.passed


def test_a_machine_without_a_compiler_fails_unless_the_c_api_is_left_out(version, in_this_process, monkeypatch, capsys):
    monkeypatch.setattr(c_program, "compiler", lambda: None)
    report = verify(version)
    assert report["C API"].result is Result.NOT_TRIED
    assert report.problems == (
        "C API: not tried: no C compiler (gcc, cc or $CC). Install one, for instance with `apt-get install gcc`, or "
        "leave it out with --no-c-api",
    )
    assert not report.passed
    assert verify(version, c_api=False).passed


def _run(*arguments: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    verify_module.add_arguments(parser)
    return run(parser.parse_args(arguments))


def test_the_command_prints_problems_and_its_exit_code_tells(version, in_this_process, capsys):
    assert _run(str(version), "--no-c-api") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{version}: passed"
    (version / "variables" / "more").write_bytes(b"x")
    assert _run(str(version.parent), "--no-c-api") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "FAILED files: variables/more is not in the manifest: it was added later",
        f"{version}: FAILED",
    ]
    assert _run(str(version / "nowhere")) == 1
    assert capsys.readouterr().out.startswith(f"FAILED {version / 'nowhere'} is no folder.")


def _folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def test_the_newest_version_is_taken(tmp_path):
    assert find_version(_folders(tmp_path, "2", "10", "9", ".11.123", "notes")) == tmp_path / "10"
    _folders(tmp_path / "2", "variables")
    assert find_version(tmp_path / "2") == tmp_path / "2"


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        ((), "x", "x is no folder. Give a version, or the folder of all versions."),
        (("x",), "x", "x holds no version. Export a model into it."),
        (("x/notes",), "x", "x holds no version. Export a model into it."),
        (("x/.3.77",), "x", "x holds no version, only what is left of exports that did not end: .3.77."),
        (("x/3",), "x/3", "x/3 is empty: the export was not finished. Export the model again."),
    ],
)
def test_a_folder_without_a_version_is_told(tmp_path, made, given, message):
    _folders(tmp_path, *made)
    with pytest.raises(FileNotFoundError) as error:
        find_version(tmp_path / given)
    assert message in str(error.value)


def test_a_tensor_above_2_gb_is_told(version, in_this_process, monkeypatch):
    examine = fresh_process.examine

    def with_large_tensor(folder, results):
        findings = examine(folder, results)
        findings["tensors"].append(["rows/part_0", "float32", [2**29, 1], 2**31])
        return findings

    monkeypatch.setattr(fresh_process, "examine", with_large_tensor)
    assert verify(version, c_api=False).problems == (
        "tensors: tensor 'rows/part_0' (float32 [536870912, 1]) has 2147483648 bytes, and 2147483647 is the most",
    )
