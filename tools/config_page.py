"""docs/config.md from the config classes: every key of `model.*`, `train.*` and `data.*`, default and meaning.

python tools/config_page.py          # writes the page; a test says when it has to be written again
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tfdlrm.config import (
    DataConfig,
    DLRMConfig,
    FeatureConfig,
    LearningRateConfig,
    MixedDimensionConfig,
    ParameterServerConfig,
    QuotientRemainderConfig,
    SyntheticConfig,
    TableConfig,
    TrainConfig,
)
from tfdlrm.data.prepare.config import PrepareConfig
from tfdlrm.records import Record, to_plain
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec, RawCells
from tfdlrm.yaml_text import dump_item

PAGE = Path(__file__).parents[1] / "docs" / "config.md"

INTRODUCTION = """\
# Every key of a config

A run is made from `model:`, `train:` and `data:`; a preset is such a file, `--set KEY=VALUE` of `tfdlrm train` changes
a key, and `tfdlrm config show NAME` prints one with all its values. What a run was made from is in its `config.yaml`.
An unknown key, and a value that is not valid, is an error that names the key; None is `null` in YAML. This page is made
from the classes (`tools/config_page.py`).

```
tfdlrm train dlrm --data prepared --set train.epochs=3 --set model.top_mlp=[128,64,1] --set train.learning_rate=0.02
```
"""

# (where the keys stand, the class)
SECTIONS: tuple[tuple[str, type[Record]], ...] = (
    ("model", DLRMConfig),
    ("model.tables, each", TableConfig),
    ("model.features, each", FeatureConfig),
    ("quotient_remainder, of the model or of a table", QuotientRemainderConfig),
    ("model.mixed_dimension", MixedDimensionConfig),
    ("train", TrainConfig),
    ("train.schedule", LearningRateConfig),
    ("train.parameter_server", ParameterServerConfig),
    ("data", DataConfig),
    ("data.synthetic", SyntheticConfig),
    ("data.schema, and schema.yaml", FeatureSpec),
    ("data.schema.dense, each", DenseColumn),
    ("data.schema.categorical, each", CategoricalColumn),
    ("data.schema.raw", RawCells),
    ("PrepareConfig, the flags of `tfdlrm data prepare`", PrepareConfig),
)
_ENTRY = re.compile(r"^    ([a-z_]+(?:, [a-z_]+)*): (.*)$")


def meanings(kind: type[Record]) -> dict[str, str]:
    """Field -> what its class says of it, in its docstring's `Args`."""
    text = inspect.getdoc(kind) or ""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.partition("Args:\n")[2].splitlines():
        if line and not line.startswith("    "):
            break  # the next part of the docstring
        entry = _ENTRY.match(line)
        if entry is not None:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif names and line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def default_of(kind: type[Record], one: Field[Any]) -> str:
    """As in YAML; a word for a field that has to be given."""
    if one.default is MISSING and one.default_factory is MISSING:
        return "required"
    value = one.default_factory() if one.default_factory is not MISSING else one.default
    if isinstance(value, Record):
        return "see there"
    return f"`{dump_item(kind.writers.get(one.name, to_plain)(value))}`"


def rows_of(kind: type[Record]) -> Iterator[str]:
    """A line of the table a field."""
    said = meanings(kind)
    for one in fields(kind):
        meaning = said[one.name].replace("|", "\\|")
        yield f"| `{one.name}` | {default_of(kind, one)} | {meaning} |"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, kind in SECTIONS:
        first = (inspect.getdoc(kind) or "").partition("\n")[0]
        parts.append(f"\n## {title}\n\n{first}\n\n| key | default | |\n|---|---|---|\n")
        parts.append("\n".join(rows_of(kind)) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {sum(len(fields(kind)) for _, kind in SECTIONS)} keys")
