"""The VM sizes that a region offers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cloud import Cloud

LOCATIONS_API = "2024-10-01"


@dataclass(frozen=True)
class VmSize:
    """A VM size that a region offers.

    Attributes:
        name: such as Standard_NC24ads_A100_v4.
        family: name of the quota that it uses.
        cores: cores per machine.
        gpus: GPUs per machine.
    """

    name: str
    family: str
    cores: int
    gpus: int


def read_sizes(cloud: Cloud) -> dict[str, VmSize]:
    """Return the sizes of the configured region by their names in lower case.

    This uses REST: newer versions of azure-ai-ml return the same fields under other names. Contract:
    "Virtual Machine Sizes - List" of Azure Machine Learning.
    """
    listed = cloud.rest_list(location_path(cloud, "vmSizes"), api=LOCATIONS_API)
    return {
        size["name"].lower(): VmSize(
            size["name"], str(size.get("family")), int(size["vCPUs"]), int(size.get("gpus") or 0)
        )
        for size in listed
    }


def location_path(cloud: Cloud, what: str) -> str:
    """Return the path of a list of Azure ML about the configured region, such as "usages"."""
    azure = cloud.config.azure
    region = re.sub(r"[^a-z0-9]", "", azure.location.lower())
    provider = f"/subscriptions/{azure.subscription_id}/providers/Microsoft.MachineLearningServices"
    return f"{provider}/locations/{region}/{what}"
