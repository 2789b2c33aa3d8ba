"""Runs the quick tests of the folders that changed since the last commit on main.

    python tools/changed_tests.py [flags of pytest]

A changed file of `tfdlrm/ROOM` means `tests/ROOM`, one of `savedmodels` or `benchmarks` means the folder of that name,
a changed test file means itself. Tests that start processes (`multiprocess`) are left out: they are what takes long.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = "tests/test_architecture.py"
PIPELINES = "tests/pipelines"  # in the environment with TFX
NO_TESTS_RAN = 5  # pytest's exit code, where all were left out


def changed_files(root: Path = ROOT) -> list[str]:
    """Files that differ from the last commit on main, new ones included."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    (base,) = git("merge-base", "main", "HEAD")
    return [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]


def paths_of_tests(files: Iterable[str], root: Path = ROOT) -> list[str]:
    """Folders and files of tests that mirror them, those that exist, each once."""
    found: dict[str, None] = {ALWAYS: None}
    for file in files:
        parts = PurePosixPath(file).parts
        if parts[0] == "tests":
            # a module that tests share stands for its folder
            is_test = parts[-1].startswith("test_") and file.endswith(".py")
            found[file if is_test else str(PurePosixPath(file).parent)] = None
        elif parts[0] == "tfdlrm" and len(parts) > 2:
            found[f"tests/{parts[1]}"] = None
        elif parts[0] == "tfdlrm":
            found[f"tests/test_{PurePosixPath(file).stem}.py"] = None
        elif len(parts) > 1:
            found[f"tests/{parts[0]}"] = None
        if parts[0] == "docs" or file == "README.md":
            found["tests/test_docs.py"] = None
    there = [path for path in found if (root / path).exists() and path != "tests"]
    if importlib.util.find_spec("tfx") is None:
        there = [path for path in there if not path.startswith(PIPELINES)]
    return [path for path in there if not any(PurePosixPath(other) in PurePosixPath(path).parents for other in there)]


def main(flags: Sequence[str]) -> int:
    paths = paths_of_tests(changed_files())
    print("make check:", *paths, flush=True)
    if any(file.startswith(("pipelines/", PIPELINES)) for file in changed_files()):
        print(f"make check: {PIPELINES} has changed, too: make test-tfx", flush=True)
    command = [sys.executable, "-m", "pytest", "-m", "not multiprocess", *flags, *paths]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return 0 if code == NO_TESTS_RAN else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
