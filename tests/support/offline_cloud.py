"""A `Cloud` whose clients are stand-ins, for tests of single functions that talk to Azure.

Whole commands run against the fake Azure instead: see `azure_fixtures`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from phi3_ops.azure.cloud import Cloud
from phi3_ops.azure.config import Config

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
OWNED = {"created-by": "phi3-promptflow", "workspace": "work", "owner": "me"}


def offline_cloud(clients: dict[str, Any] | None = None, **sections: Any) -> Cloud:
    """Return a cloud of the workspace `work`.

    Args:
        clients: attribute of `Cloud` (such as `ml`) -> stand-in.
        sections: sections of the configuration.
    """
    azure = {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "workspace": "work"}
    cloud = Cloud(Config.model_validate({"azure": azure, **sections}), credential=object())
    vars(cloud).update(clients or {})  # a cached property reads its value from here
    return cloud


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
