"""Verifier: the component that loads a SavedModel as a server would, and lets it be pushed where it answers rightly.

It takes the place of InfraValidator, which needs Docker. The pipeline goes on where a model fails; nothing is pushed.
"""

# without `from __future__ import annotations`: TFX reads the annotations of a component's function
import json
from pathlib import Path

from pipelines.tfx_extra import tfx
from savedmodels.verify import verify

BLESSED, NOT_BLESSED = "INFRA_BLESSED", "INFRA_NOT_BLESSED"  # TFX's own names
REPORT = "report.json"


@tfx.dsl.components.component
def Verifier(
    model: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Model],
    blessing: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.InfraBlessing],
) -> None:
    """Verifies the SavedModel of a Trainer; see `savedmodels.verify`, without the C API, which takes a compiler.

    Args:
        model: of the Trainer.
        blessing: where `INFRA_BLESSED` or `INFRA_NOT_BLESSED` is written, and `report.json` with what was found.
    """
    export = Path(model.uri) / "Format-Serving"
    report = verify(export, c_api=False)
    folder = Path(blessing.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (BLESSED if report.passed else NOT_BLESSED)).touch()
    checks = {check.name: check.result.value for check in report.checks}
    found = {"export": str(export), "checks": checks, "problems": list(report.problems)}
    (folder / REPORT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    blessing.set_int_custom_property("blessed", int(report.passed))
    for problem in report.problems:
        print(f"Verifier: {export}: {problem}")
