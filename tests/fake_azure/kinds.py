"""The resource types: the rows of kinds.yaml with what the other modules do for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from . import assets, endpoints, identity, jobs, workspace

ML = "Microsoft.MachineLearningServices/workspaces"
HOOKS = {
    "Microsoft.Resources/deployments": {"work": workspace.deploy_template},
    "Microsoft.Authorization/roleAssignments": {"check": identity.check_assignment},
    ML: {"check": workspace.open_workspace},
    f"{ML}/models/versions": {"check": assets.keep_path},
    f"{ML}/connections": {"show": workspace.hide_credentials},
    f"{ML}/jobs": {"check": jobs.check_job, "show": jobs.show_job, "undo": jobs.forget_job},
    f"{ML}/onlineEndpoints": {"check": endpoints.check_endpoint},
    f"{ML}/onlineEndpoints/deployments": {
        "check": endpoints.check_deployment,
        "work": endpoints.run_deployment,
        "undo": endpoints.stop_deployment,
    },
}


@dataclass(frozen=True)
class Kind:
    """A row. The hooks take the cloud and the resource's ArmPath first."""

    type: str
    versions: str
    defaults: dict = field(default_factory=dict)
    operations: str = ""
    lasting: bool = True
    tracked: bool = False
    versioned: bool = False
    immutable: str = ""
    check: Callable | None = None  # (…, old, new): refuse it or complete it; new None: a deletion
    work: Callable | None = None  # (…, new): what a PUT's operation waits for
    undo: Callable | None = None  # (…): what a deletion's operation waits for
    show: Callable | None = None  # (…, copy): what a GET changes


ROWS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
KINDS = {name.lower(): Kind(name, **row, **HOOKS.get(name, {})) for name, row in ROWS.items()}
