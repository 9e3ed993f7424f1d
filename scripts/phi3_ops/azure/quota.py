"""Whether Azure can provide the configured machines: retired sizes, and quota by family and by region.

Azure ML counts cores, separately from ordinary virtual machines. Two limits apply at the same time: one
for the family and one for the region. Contract: "Manage and increase quotas and limits for resources with
Azure Machine Learning".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import paths
from ..errors import OpsError
from ..yaml_files import load_yaml
from .cloud import Cloud
from .config import Config
from .faults import named_errors
from .regions import LOCATIONS_API, VmSize, location_path, read_sizes

ASK_FOR_QUOTA = "Request more on the portal's page Azure Machine Learning > Quota."
A100 = "Standard_NC24ads_A100_v4"
# Retired size -> date of retirement, and replacement.
RETIRED = {
    "standard_nc6s_v3": ("2025-09-30", A100),
    "standard_nc12s_v3": ("2025-09-30", A100),
    "standard_nc24s_v3": ("2025-09-30", A100),
    "standard_nc24rs_v3": ("2025-09-30", A100),
}
# Sizes that not every subscription can use.
RESTRICTED = {"standard_e4s_v3": "new subscriptions cannot deploy it"}
# Whether the machines are low-priority ones -> name of the regional limit.
REGION = {
    False: "Total Cluster Dedicated Regional vCPUs",
    True: "Total Cluster LowPriority Regional vCPUs",
}
# An online deployment needs a fifth more than its instances, kept for upgrades, except in these families.
# Contract: "Managed online endpoints SKU list".
RESERVE = 0.2
NO_RESERVE = (
    "standardNCADSA100v4Family",
    "standardNCADSH100v5Family",
    "standardNDAMSv4_A100Family",
    "standardNDASv4_A100Family",
    "standardNDSv2Family",
    "standardNDv5H100Family",
)


@dataclass(frozen=True)
class QuotaNeed:
    """Machines that a cluster or an endpoint needs.

    Attributes:
        purpose: "cluster", "endpoint" or "flow".
        size: VM size, such as Standard_NC24ads_A100_v4.
        instances: number of machines, at most.
        low_priority: whether they are of the cheaper tier, which has one limit for all families.
        endpoint: whether they are for an online deployment, which needs a reserve.
    """

    purpose: str
    size: str
    instances: int
    low_priority: bool = False
    endpoint: bool = False


@dataclass(frozen=True)
class QuotaUsage:
    """One limit that Azure lists, and its use.

    Attributes:
        names: spellings of its name, as `normalised` returns them.
        used: cores in use.
        limit: cores at most; None if there is no limit.
    """

    names: frozenset[str]
    used: int
    limit: int | None

    @property
    def free(self) -> float:
        """Cores that are left."""
        return math.inf if self.limit is None else self.limit - self.used


@dataclass(frozen=True)
class QuotaLine:
    """One need compared with one limit.

    Attributes:
        purpose: "cluster" or "endpoint".
        size: VM size.
        quota: name of the limit.
        used: cores in use.
        limit: cores at most; None if Azure does not list the limit.
        needed: cores that the need takes.
    """

    purpose: str
    size: str
    quota: str
    used: int
    limit: int | None
    needed: int

    @property
    def missing(self) -> int:
        """The number of missing cores, 0 if there are enough or the limit is unknown."""
        return 0 if self.limit is None else max(0, self.needed - (self.limit - self.used))


def cluster_need(config: Config) -> QuotaNeed:
    """Return the need of the configured cluster with all its nodes up."""
    compute = config.compute
    return QuotaNeed("cluster", compute.size, compute.max_instances, compute.low_priority)


def endpoint_need(config: Config) -> QuotaNeed:
    """Return the need of one deployment with all its machines; a redeploy runs two for a while."""
    endpoint = config.endpoint
    most = endpoint.autoscale.max if endpoint.autoscale else endpoint.instances
    return QuotaNeed("endpoint", endpoint.size, most, endpoint=True)


def flow_need() -> QuotaNeed:
    """Return the need of a flow's endpoint, whose machines scripts/azure/flow-deployment.yml names."""
    definition = load_yaml(paths.AZURE / "flow-deployment.yml")
    size, count = definition["instance_type"], definition["instance_count"]
    return QuotaNeed("flow", size, count, endpoint=True)


def refuse_retired(needs: Iterable[QuotaNeed]) -> None:
    """Raise OpsError for a size that no longer exists, with the size that replaces it."""
    for need in needs:
        if need.size.lower() in RETIRED:
            since, replacement = RETIRED[need.size.lower()]
            raise OpsError(
                f"{need.purpose}: {need.size} was retired on {since}", f"Use {replacement}."
            )


def quota_notes(needs: Iterable[QuotaNeed]) -> list[str]:
    """Return notes on restricted sizes, one line per size."""
    notes = {need.size: RESTRICTED.get(need.size.lower()) for need in needs}
    return [f"{size}: {note}" for size, note in notes.items() if note]


def quota_lines(cloud: Cloud, needs: Sequence[QuotaNeed]) -> list[QuotaLine]:
    """Compare each need with the limits of its family and of the region.

    Raises:
        OpsError: a size is retired, or the region does not offer it.
    """
    refuse_retired(needs)
    region = cloud.config.azure.location
    with named_errors(f"reading the quota of {region}"):
        sizes = read_sizes(cloud)
        listed = list(cloud.rest_list(location_path(cloud, "usages"), api=LOCATIONS_API))
    usages = [_usage(item) for item in listed if not _of_another_workspace(item, cloud)]
    return [line for need in needs for line in _lines(need, sizes, usages, region)]


def require_quota(cloud: Cloud, needs: Sequence[QuotaNeed]) -> None:
    """Raise OpsError if cores are missing, with their number, family and region."""
    if shortage := quota_shortage(quota_lines(cloud, needs), cloud.config.azure.location):
        raise OpsError(shortage, ASK_FOR_QUOTA)


def quota_shortage(lines: Iterable[QuotaLine], region: str) -> str:
    """Return one sentence that lists the missing cores, "" if none are missing."""
    return "; ".join(
        f"{line.purpose}: {line.missing} cores of {line.quota} are missing in {region} "
        f"({line.size} needs {line.needed}, {line.used} of {line.limit} are used)"
        for line in lines
        if line.missing
    )


def normalised(name: str | None) -> str:
    """Return the name of a quota or family for comparison: Azure spells the same name in several ways."""
    plain = re.sub(r"[^a-z0-9]", "", (name or "").lower())
    return re.sub(r"family.*$", "", plain)


def find_usage(usages: Iterable[QuotaUsage], name: str) -> QuotaUsage | None:
    """Return the usage of that name, None without one.

    Of several, as in a workspace with its own limit, the tightest applies.
    """
    matches = [usage for usage in usages if normalised(name) in usage.names]
    return min(matches, key=lambda usage: usage.free, default=None)


def cores(need: QuotaNeed, cores_each: int, family: str) -> int:
    """Return the cores that must be free for a need, including the reserve for upgrades.

    Args:
        need: machines and their purpose.
        cores_each: cores per machine.
        family: family of the size.
    """
    exempt = normalised(family) in map(normalised, NO_RESERVE)
    reserve = RESERVE if need.endpoint and not exempt else 0.0
    # Rounded first, because 5 * 1.2 is slightly above 6 in floating point.
    return math.ceil(round(need.instances * (1 + reserve), 6)) * cores_each


def _lines(
    need: QuotaNeed, sizes: Mapping[str, VmSize], usages: Sequence[QuotaUsage], region: str
) -> list[QuotaLine]:
    size = sizes.get(need.size.lower())
    if size is None:
        raise OpsError(
            f"{need.purpose}: {region} does not offer {need.size}", "Choose another size or region."
        )
    needed = cores(need, size.cores, size.family)
    quotas = [REGION[need.low_priority]]
    if not need.low_priority:  # the low-priority tier has one limit for all families
        quotas.insert(0, size.family)
    return [_line(need, needed, quota, find_usage(usages, quota)) for quota in quotas]


def _line(need: QuotaNeed, needed: int, quota: str, usage: QuotaUsage | None) -> QuotaLine:
    usage = usage or QuotaUsage(frozenset(), 0, None)
    return QuotaLine(need.purpose, need.size, quota, usage.used, usage.limit, needed)


def _usage(item: Mapping[str, Any]) -> QuotaUsage:
    """Convert an entry of Azure's list. A negative limit means that the quota is unlimited."""
    names = frozenset(normalised(item["name"].get(key)) for key in ("value", "localizedValue"))
    limit = int(item["limit"])
    return QuotaUsage(names, int(item["currentValue"]), limit if limit >= 0 else None)


def _of_another_workspace(item: Mapping[str, Any], cloud: Cloud) -> bool:
    usage_id = str(item.get("id") or "").lower()
    own_prefix = f"{cloud.workspace_path.lower()}/"
    return "/workspaces/" in usage_id and not usage_id.startswith(own_prefix)
