"""The repository keeps its own rules (arrows of the design, no tf.keras, no unsafe loading, module sizes)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import architecture

ROOT = Path(__file__).parents[1]
LIBRARY = ("tfdlrm", "savedmodels", "pipelines")


def _check(files, rule):
    return [
        violation
        for file in files
        for violation in rule(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    ]


def test_imports_follow_the_arrows():
    assert _check(architecture.python_files(ROOT, *LIBRARY), architecture.import_violations) == []


def test_optional_packages_are_imported_where_they_are_used():
    assert _check(architecture.python_files(ROOT, "tfdlrm"), architecture.eager_import_violations) == []


def test_nothing_forbidden_is_used():
    files = architecture.python_files(ROOT, *LIBRARY, "tests", "benchmarks")
    assert _check(files, architecture.forbidden_use) == []


def test_messages_quote_at_bounded_length():
    assert _check(architecture.python_files(ROOT, *LIBRARY), architecture.unbounded_quotes) == []
    bad = 'def f(x):\n    raise ValueError(f"got {x!r}, and {x}")\n'
    assert len(architecture.unbounded_quotes(bad, "tfdlrm/data/x.py")) == 1
    assert architecture.unbounded_quotes(bad, "tfdlrm/native/x.py") == []
    good = 'def __repr__(self):\n    return f"{self.x!r}"\ndef f(x):\n    raise ValueError(f"got {quoted(x)}")\n'
    assert architecture.unbounded_quotes(good, "tfdlrm/data/x.py") == []


def test_modules_are_short_and_well_named():
    files = architecture.python_files(ROOT, *LIBRARY, "tests", "benchmarks")
    assert _check(files, architecture.size_and_name_violations) == []


def test_documentation_uses_nothing_forbidden():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    violations = [
        violation
        for page in pages
        for line, block in architecture.python_blocks(page.read_text(encoding="utf-8"))
        for violation in architecture.forbidden_use(textwrap.dedent(block), f"{page.name} (block at {line})")
    ]
    assert violations == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("tfdlrm/embeddings/tables.py", "import keras", "embeddings must not import keras"),
        ("tfdlrm/native/loader.py", "from keras import ops", "native must not import keras"),
        ("tfdlrm/embeddings/lookup.py", "from tfdlrm.layers import mlp", "embeddings must not import layers"),
        ("tfdlrm/layers/mlp.py", "import tfdlrm.models.dlrm", "layers must not import models"),
        (
            "tfdlrm/models/dlrm.py",
            "from tfdlrm.embeddings.placement import local",
            "must not import a placement",
        ),
        ("tfdlrm/models/dlrm.py", "from tfdlrm.embeddings import placement", "must not import a placement"),
        ("tfdlrm/data/criteo.py", "from tfdlrm.training import fit", "data must not import training"),
        ("tfdlrm/training/fit.py", "def f():\n    import savedmodels", "tfdlrm must not import savedmodels"),
        ("tfdlrm/cli.py", "from pipelines import taxi", "tfdlrm must not import pipelines"),
        ("savedmodels/export.py", "import pipelines.taxi", "savedmodels must not import pipelines"),
        (
            "tfdlrm/config/model.py",
            "from tfdlrm.embeddings.tables import T",
            "config must not import embeddings",
        ),
        ("tfdlrm/schema.py", "from tfdlrm.config import DLRMConfig", "schema must not import config"),
        ("tfdlrm/layers/mlp.py", "from ..models import dlrm", "layers must not import models"),
        ("tfdlrm/layers/mlp.py", "from .. import models", "layers must not import models"),
        ("tfdlrm/layers/mlp.py", "import tfdlrm", "not the tfdlrm facade"),
        ("tfdlrm/brand_new/thing.py", "x = 1", "room 'brand_new' is new"),
    ],
)
def test_a_broken_arrow_is_found(path, source, expected):
    violations = architecture.import_violations(source, path)
    assert len(violations) == 1
    assert expected in violations[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tfdlrm/config/tables.py", "from tfdlrm.embeddings.optimizers import SGD"),
        ("tfdlrm/config/tables.py", "from tfdlrm.embeddings import initializers"),
        ("tfdlrm/layers/collection.py", "import keras\nfrom tfdlrm.embeddings.tables import EmbeddingTables"),
        ("tfdlrm/training/fit.py", "from tfdlrm.data.dataset import Dataset\nfrom . import callbacks"),
        ("pipelines/taxi.py", "import savedmodels\nimport tfdlrm"),
    ],
)
def test_a_good_arrow_passes(path, source):
    assert architecture.import_violations(source, path) == []


@pytest.mark.parametrize(
    "source",
    [
        "import tensorflow as tf\ntf.keras.layers.Dense(1)",
        "import tensorflow as tf\nx = tf.keras",
        "from tensorflow import keras",
        "from tensorflow.keras import layers",
        "import tensorflow.keras",
        "from tensorflow.python.keras import backend",
        "eval('1')",
        "exec('x = 1')",
        "import pickle",
        "from cloudpickle import loads",
        "import yaml\nyaml.load(text)",
        "from yaml import unsafe_load",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=flag)",
    ],
)
def test_a_forbidden_use_is_found(source):
    assert len(architecture.forbidden_use(source, "sample.py")) == 1


def test_allowed_uses_pass():
    source = """
        import keras
        import numpy as np
        import tf_keras
        import yaml
        yaml.safe_load(text); np.load(f, allow_pickle=False); model.eval(); keras.layers.Dense(1)
    """
    assert architecture.forbidden_use(textwrap.dedent(source), "sample.py") == []


def test_an_eager_import_is_found():
    bad = "try:\n    import polars\nexcept ImportError:\n    import pandas as pd\n"
    assert len(architecture.eager_import_violations(bad, "tfdlrm/data/x.py")) == 2
    good = "def read():\n    import polars\nif TYPE_CHECKING:\n    import polars\n"
    assert architecture.eager_import_violations(good, "tfdlrm/data/x.py") == []


def test_a_gate_imports_its_own_package_only():
    source = "try:\n    import polars\nexcept ImportError:\n    raise ImportError('extra')\n"
    assert architecture.eager_import_violations(source, "tfdlrm/data/polars_extra.py") == []
    assert len(architecture.eager_import_violations(source, "tfdlrm/data/torch_extra.py")) == 1


def test_only_the_documentation_is_executed():
    assert architecture.forbidden_use("exec(code)", "tests/test_docs.py") == []
    assert len(architecture.forbidden_use("eval(code)", "tests/test_docs.py")) == 1
    assert len(architecture.forbidden_use("exec(code)", "tests/test_other.py")) == 1


def test_long_and_unnamed_modules_are_found():
    assert architecture.size_and_name_violations("x = 1\n" * architecture.MAX_LINES, "tfdlrm/a.py") == []
    assert len(architecture.size_and_name_violations("x = 1\n" * 401, "tfdlrm/a.py")) == 1
    assert len(architecture.size_and_name_violations("", "tfdlrm/data/utils.py")) == 1
    assert len(architecture.size_and_name_violations("", "tests/common/a.py")) == 1


def test_python_blocks_of_a_page():
    page = "# Title\n```python\nimport keras\nx = 1\n```\ntext\n```\nnot python\n```\n"
    assert list(architecture.python_blocks(page)) == [(3, "import keras\nx = 1")]


@pytest.mark.multiprocess
def test_importing_tfdlrm_is_light():
    """In a process of its own: this one has long imported everything."""
    code = (
        "import sys, tfdlrm\n"
        "heavy = ['polars', 'pyarrow', 'torch', 'matplotlib', 'rich', 'tfx', 'apache_beam', 'tensorboard',\n"
        "         'pandas', 'sklearn', 'tensorflow', 'keras']\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "from tfdlrm import FeatureSpec\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "[]"]


@pytest.mark.multiprocess
def test_the_whole_library_imports_without_the_optional_packages():
    """TensorFlow and Keras bring some of them along; what counts is that ours would do without."""
    code = (
        "import sys\n"
        "for name in ['polars', 'pyarrow', 'torch', 'matplotlib', 'tfx', 'apache_beam', 'tensorboard',\n"
        "             'pandas', 'sklearn', 'tensorflow_recommenders', 'tf_keras']:\n"
        "    sys.modules[name] = None\n"  # any import of it now raises ImportError
        "import tfdlrm\n"
        "for name in tfdlrm.__all__:\n"
        "    getattr(tfdlrm, name)\n"
        "print('imported', len(tfdlrm.__all__))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("imported")
