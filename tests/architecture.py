"""The rules of the house as functions of source text, so that they can be tried on bad samples, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

MAX_LINES = 400
FORBIDDEN_FILE_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})

# Imports of an optional or slow package belong inside the function that needs it.
OPTIONAL_PACKAGES = frozenset(
    {
        "polars",
        "pyarrow",
        "pandas",
        "torch",
        "matplotlib",
        "jinja2",
        "scipy",
        "optuna",
        "rich",
        "tensorboard",
        "sklearn",
        "tfx",
        "apache_beam",
    }
    | {"tensorflow_recommenders", "tf_keras"}
)
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"})
UNSAFE_CALLS = frozenset({"eval", "exec"})
# The one place that runs text: the documentation's own blocks.
MAY_EXEC = frozenset({"tests/test_docs.py"})

# They import nothing, and what they quote comes from a caller in Python; or they run in a process of their own, where
# nothing of ours is imported, and whose lines are cut by who started it.
UNQUOTED_ROOMS = (
    *(f"tfdlrm/{room}" for room in ("native/", "losses", "metrics/", "hashing", "stop_signals")),
    *(f"savedmodels/{room}" for room in ("graph_ops", "recorded", "warmup", "verification/fresh_process")),
)

LEAVES = frozenset(
    {"checks", "records", "yaml_text", "schema", "schema_columns", "hashing", "stop_signals", "files"} | {"array_files"}
)
CONFIG = LEAVES | {"config"}
EMBEDDINGS = CONFIG | {"native", "embeddings"}
LAYERS = EMBEDDINGS | {"layers"}
MODELS = LAYERS | {"models", "losses", "metrics"}
DATA = CONFIG | {"data", "pages"}
DISTRIBUTE = MODELS | DATA | {"distribute"}
TRAINING = DISTRIBUTE | {"training"}
REPORT = TRAINING | {"report"}
TUNING = TRAINING | {"tuning"}
CLI = REPORT | TUNING | {"interop", "demo", "cli"}

# Room of tfdlrm (its first name below the package) -> rooms that it may import. A new room needs a line here.
ARROWS: Mapping[str, frozenset[str]] = {
    "checks": frozenset(),
    "yaml_text": frozenset({"checks"}),
    "hashing": frozenset(),
    "stop_signals": frozenset(),
    "pages": frozenset({"pages"}),
    "files": frozenset({"checks"}),
    "array_files": frozenset({"checks"}),
    "records": frozenset({"checks", "files", "yaml_text"}),
    "schema_columns": frozenset({"checks", "records"}),
    "schema": frozenset({"checks", "records", "schema_columns"}),
    "config": CONFIG,
    "native": frozenset({"native", "files"}),
    "embeddings": EMBEDDINGS,
    "layers": LAYERS,
    "models": MODELS,
    "losses": frozenset(),
    "metrics": frozenset({"metrics"}),
    "data": DATA,
    "interop": MODELS | {"interop"},
    "distribute": DISTRIBUTE,
    "training": TRAINING,
    "report": REPORT,
    "tuning": TUNING,
    "demo": TRAINING | {"demo"},
    "cli": CLI,
    "__main__": frozenset({"cli"}),
}
# Single modules that may be imported although their room may not: they import nothing of it in turn.
EXTRA_MODULES: Mapping[str, frozenset[str]] = {
    "config": frozenset({"tfdlrm.embeddings.optimizers", "tfdlrm.embeddings.initializers"}),
    # plain functions of the library, with nothing of TensorFlow
    "data": frozenset({"tfdlrm.native.text", "tfdlrm.native.columns", "tfdlrm.native.examples"}),
    # what `FeatureSpec.infer` calls: a schema from rows
    "schema": frozenset({"tfdlrm.data.infer"}),
}
KERAS_FREE_ROOMS = frozenset(
    {"embeddings", "native", "schema", "config", "checks", "files", "records", "yaml_text", "hashing", "stop_signals"}
    | {"schema_columns"}
)
# Top packages -> top packages of this repository that they may import.
PACKAGE_ARROWS: Mapping[str, frozenset[str]] = {
    "tfdlrm": frozenset({"tfdlrm"}),
    "savedmodels": frozenset({"savedmodels", "tfdlrm"}),
    "pipelines": frozenset({"pipelines", "savedmodels", "tfdlrm"}),
}


def imported_modules(tree: ast.AST, package: str = "") -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, inside functions too; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def import_violations(source: str, path: str) -> list[str]:
    """Arrows that a module of `tfdlrm`, `savedmodels` or `pipelines` breaks.

    Args:
        source: the module's text.
        path: where it lies in the repository, `/` between folders.
    """
    parts = PurePosixPath(path).with_suffix("").parts
    package, room = parts[0], parts[1]
    is_facade = parts == ("tfdlrm", "__init__")  # it names everything, lazily
    found = []
    if package == "tfdlrm" and not is_facade and room not in ARROWS:
        return [f"{path}: room {room!r} is new; add its arrows to tests/architecture.py"]
    own_package = ".".join(parts[:-1])
    for line, name in imported_modules(ast.parse(source), own_package):
        top, *rest = name.split(".")
        if top in PACKAGE_ARROWS and top not in PACKAGE_ARROWS[package]:
            found.append(f"{path}:{line}: {package} must not import {top} ({name})")
        elif top == "tfdlrm" and package == "tfdlrm" and not is_facade:
            found += _room_violations(path, line, room, name, rest)
        elif top == "keras" and package == "tfdlrm" and room in KERAS_FREE_ROOMS:
            found.append(f"{path}:{line}: {room} must not import keras")
    return found


def _room_violations(path: str, line: int, room: str, name: str, rest: list[str]) -> list[str]:
    if rest == ["__version__"]:
        return []
    if not rest:
        return [f"{path}:{line}: import the module that defines the name, not the tfdlrm facade"]
    target = rest[0]
    extra = EXTRA_MODULES.get(room, frozenset())
    if any(name == module or name.startswith(module + ".") for module in extra):
        return []
    if target not in ARROWS[room] and target != room:
        return [f"{path}:{line}: {room} must not import {target} ({name})"]
    if room == "models" and rest[:2] == ["embeddings", "placement"]:
        return [f"{path}:{line}: models must not import a placement ({name})"]
    return []


def eager_import_violations(source: str, path: str) -> list[str]:
    """Optional packages imported when the module is, rather than in the function that needs them.

    A module `<package>_extra.py` is the gate of its package: it may import that one and says what to install.
    """
    gate_of = PurePosixPath(path).stem.removesuffix("_extra") if path.endswith("_extra.py") else None
    found = []
    for statement in _module_level(ast.parse(source).body):
        for line, name in imported_modules(statement):
            if name.split(".")[0] in OPTIONAL_PACKAGES - {gate_of}:
                found.append(f"{path}:{line}: import {name} inside the function that needs it")
    return found


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import; not those under `if TYPE_CHECKING`."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from _module_level(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                yield from _module_level(handler.body)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement


def forbidden_use(source: str, path: str) -> list[str]:
    """`tf.keras` in any spelling, and ways to run code that a file or a string brings along."""
    tree = ast.parse(source)
    found = []
    for line, name in imported_modules(tree):
        top = name.split(".")[0]
        if name.startswith(("tensorflow.keras", "tensorflow.python.keras")):
            found.append(f"{path}:{line}: {name}: use `import keras`")
        if top in UNSAFE_MODULES:
            found.append(f"{path}:{line}: {top} runs code from the file that it reads")
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            found.append(f"{path}:{line}: {name}: use tfdlrm.yaml_text.parse_yaml")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if dotted in ("tf.keras", "tensorflow.keras"):
                found.append(f"{path}:{node.lineno}: {dotted}: use `import keras`")
            if dotted in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
                found.append(f"{path}:{node.lineno}: {dotted}: use tfdlrm.yaml_text.parse_yaml")
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS - _allowed_calls(path):
                found.append(f"{path}:{node.lineno}: {node.func.id}() is forbidden")
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg == "allow_pickle" and not (isinstance(value, ast.Constant) and value.value is False):
                    found.append(f"{path}:{node.lineno}: allow_pickle may only be False")
    return found


def _allowed_calls(path: str) -> frozenset[str]:
    return frozenset({"exec"}) if path in MAY_EXEC else frozenset()


def unbounded_quotes(source: str, path: str) -> list[str]:
    """`{value!r}` in a room that may import `checks.quoted`: what a file or a client has given may be of any length."""
    found: list[str] = []
    if PurePosixPath(path).with_suffix("").as_posix().startswith(UNQUOTED_ROOMS):
        return found

    class Visitor(ast.NodeVisitor):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            if node.name != "__repr__":
                self.generic_visit(node)

        def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
            if node.conversion == ord("r"):
                found.append(f"{path}:{node.lineno}: {ast.unparse(node)}: quote it by tfdlrm.checks.quoted")
            self.generic_visit(node)

    Visitor().visit(ast.parse(source))
    return found


def size_and_name_violations(source: str, path: str) -> list[str]:
    """Modules that are too long or named after nothing."""
    found = []
    num_lines = len(source.splitlines())
    if num_lines > MAX_LINES:
        found.append(f"{path}: {num_lines} lines; split it by what changes together (limit {MAX_LINES})")
    found += [
        f"{path}: {part!r} names nothing; name the file after what it holds"
        for part in PurePosixPath(path).with_suffix("").parts
        if part in FORBIDDEN_FILE_NAMES
    ]
    return found


def python_blocks(markdown: str) -> Iterator[tuple[int, str]]:
    """(first line, text) of the fenced python blocks of a page."""
    block: list[str] | None = None
    start = 0
    for number, line in enumerate(markdown.splitlines(), 1):
        if block is None and line.strip().startswith("```python"):
            block, start = [], number + 1
        elif block is not None and line.strip() == "```":
            yield start, "\n".join(block)
            block = None
        elif block is not None:
            block.append(line)


def python_files(root: Path, *folders: str) -> list[Path]:
    """Python files below the folders, in order; environments, builds and caches excluded."""
    return sorted(
        path for folder in folders for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts
    )
