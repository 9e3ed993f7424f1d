"""The resource types: the rows of kinds.yaml with what the other modules do for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from . import assets, endpoints, identity, jobs, workspace
from .workspace import ML

HOOKS = {
    "Microsoft.Resources/deployments": {"work": workspace.deploy_template},
    "Microsoft.Authorization/roleAssignments": {"check": identity.check_assignment},
    ML: {"check": workspace.open_workspace},
    f"{ML}/models/versions": {"check": assets.keep_path},
    f"{ML}/connections": {"show": workspace.hide_credentials},
    f"{ML}/jobs": {"check": jobs.check_job, "show": jobs.show_job, "undo": jobs.forget_job},
    f"{ML}/onlineEndpoints": {"check": endpoints.check_endpoint},
    f"{ML}/onlineEndpoints/deployments": {
        "keep": endpoints.keep_live,
        "work": endpoints.run_deployment,
        "undo": endpoints.stop_deployment,
    },
}


def nothing(*_):
    """The hook of a row that has none."""


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
    check: Callable = nothing  # (…, old, new): refuse a PUT, or complete it
    keep: Callable = nothing  # (…): refuse a deletion
    work: Callable = nothing  # (…, new): what a PUT's operation waits for
    undo: Callable = nothing  # (…): what a deletion's operation waits for
    show: Callable = nothing  # (…, copy): what a GET changes


ROWS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
KINDS = {name.lower(): Kind(name, **row, **HOOKS.get(name, {})) for name, row in ROWS.items()}
