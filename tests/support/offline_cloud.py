"""A `Cloud` whose clients are stand-ins, for tests of single functions that talk to Azure.

Whole commands run against the fake Azure instead: see `azure_fixtures`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
AZURE = {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "workspace": "work"}
OWNED = {"created-by": "phi3-promptflow", "workspace": "work", "owner": "me"}


def offline_cloud(clients: dict[str, Any] | None = None, **sections: Any) -> Cloud:
    """Return a cloud of the workspace `work`.

    Args:
        clients: attribute of `Cloud` (such as `ml`) -> stand-in.
        sections: sections of the configuration.
    """
    cloud = Cloud(Config.model_validate({"azure": AZURE, **sections}), credential=object())
    vars(cloud).update(clients or {})  # a cached property reads its value from here
    return cloud


def write_config(folder: Path, **sections: Any) -> Path:
    """Write a `phi3.yaml` for the same workspace, and return its path."""
    file = folder / "phi3.yaml"
    file.write_text(yaml.safe_dump({"azure": AZURE, **sections}), encoding="utf-8")
    return file


def missing(*_: Any, **__: Any) -> Any:
    """Stand for a request of a resource that does not exist."""
    from azure.core.exceptions import ResourceNotFoundError

    raise ResourceNotFoundError("not found")


def operations(**functions: Any) -> Any:
    """Return a stand-in for a group of operations, such as `ml.jobs`."""
    return SimpleNamespace(**functions)


def poller(result: Any = None) -> Any:
    """Return a stand-in for a long-running operation that has ended."""
    return SimpleNamespace(result=lambda: result)
