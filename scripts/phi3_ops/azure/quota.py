"""Whether the machines may be had at all: retired sizes, and quota by family and by region.

Azure ML counts cores, apart from those of ordinary virtual machines, and two limits bind at once: the
family's and the region's. Contract: "Manage and increase quotas and limits for resources with Azure
Machine Learning".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import OpsError
from .cloud import Cloud, named_errors
from .config import Config

ASK_FOR_QUOTA = "Ask for more on the portal's page Azure Machine Learning > Quota."
A100 = "Standard_NC24ads_A100_v4"
# Retired size -> since when, and what replaces it.
RETIRED = {
    "standard_nc6s_v3": ("2025-09-30", A100),
    "standard_nc12s_v3": ("2025-09-30", A100),
    "standard_nc24s_v3": ("2025-09-30", A100),
    "standard_nc24rs_v3": ("2025-09-30", A100),
}
# Sizes that still run, but not everywhere.
RESTRICTED = {"standard_e4s_v3": "new subscriptions cannot deploy it"}
REGION = {
    False: "Total Cluster Dedicated Regional vCPUs",
    True: "Total Cluster LowPriority Regional vCPUs",
}
# An online deployment needs a fifth more than it runs on, kept for upgrades, except in these families.
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
    """Machines that something will run on.

    Attributes:
        purpose: what for.
        size: VM size, such as Standard_NC24ads_A100_v4.
        instances: how many at most.
        low_priority: of the cheaper tier, which has one limit for all families.
        endpoint: for an online deployment, which needs a reserve.
    """

    purpose: str
    size: str
    instances: int
    low_priority: bool = False
    endpoint: bool = False


@dataclass(frozen=True)
class QuotaLine:
    """One need against one limit, in cores; `limit` is None where Azure names no such limit."""

    purpose: str
    size: str
    quota: str
    used: int
    limit: int | None
    needed: int

    @property
    def missing(self) -> int:
        """Cores that are missing, 0 when there are enough or the limit is unknown."""
        return 0 if self.limit is None else max(0, self.needed - (self.limit - self.used))

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "missing": self.missing}


def cluster_need(config: Config) -> QuotaNeed:
    """What the cluster of the configuration takes with all its nodes up."""
    compute = config.compute
    return QuotaNeed("cluster", compute.size, compute.max_instances, compute.low_priority)


def endpoint_need(config: Config) -> QuotaNeed:
    """What one deployment of the configuration takes; a redeploy has two for a while."""
    endpoint = config.endpoint
    return QuotaNeed("endpoint", endpoint.size, endpoint.instances, endpoint=True)


def refuse_retired(needs: Iterable[QuotaNeed]) -> None:
    """Raises OpsError for a size that no longer exists, naming the one that replaces it."""
    for need in needs:
        if need.size.lower() in RETIRED:
            since, replacement = RETIRED[need.size.lower()]
            raise OpsError(
                f"{need.purpose}: {need.size} was retired on {since}", f"Use {replacement}."
            )


def quota_notes(needs: Iterable[QuotaNeed]) -> list[str]:
    """What else is known of the sizes, a line each."""
    found = {need.size: RESTRICTED.get(need.size.lower()) for need in needs}
    return [f"{size}: {note}" for size, note in found.items() if note]


def quota_lines(cloud: Cloud, needs: Sequence[QuotaNeed]) -> list[QuotaLine]:
    """Each need against the limit of its family and that of the region.

    Raises:
        OpsError: a size is retired, or the region does not have it.
    """
    refuse_retired(needs)
    region = cloud.config.azure.location
    with named_errors(f"reading the quota of {region}"):
        sizes = {each.name.lower(): each for each in cloud.ml.compute.list_sizes(location=region)}
        usages = [vars(each) for each in cloud.ml.compute.list_usage(location=region)]
    usages = [usage for usage in usages if not _of_another_workspace(usage, cloud)]
    return [line for need in needs for line in _lines(need, sizes, usages, region)]


def require_quota(cloud: Cloud, needs: Sequence[QuotaNeed]) -> None:
    """Raises OpsError saying how many cores are missing, of which family, where, and whom to ask."""
    short = quota_shortage(quota_lines(cloud, needs), cloud.config.azure.location)
    if short:
        raise OpsError(short, ASK_FOR_QUOTA)


def quota_shortage(found: Iterable[QuotaLine], region: str) -> str:
    """One sentence for all that is missing, "" where nothing is."""
    return "; ".join(
        f"{line.purpose}: {line.missing} cores of {line.quota} are missing in {region} "
        f"({line.size} needs {line.needed}, {line.used} of {line.limit} are used)"
        for line in found
        if line.missing
    )


def normalised(name: str | None) -> str:
    """A quota's or family's name as it compares: Azure spells the same one in several ways."""
    plain = re.sub(r"[^a-z0-9]", "", (name or "").lower())
    return re.sub(r"family.*$", "", plain)


def find_usage(usages: Iterable[Mapping[str, Any]], wanted: str) -> Mapping[str, Any] | None:
    """The usage of that name; of several, as where a workspace has a limit of its own, the tightest."""
    found = [
        usage
        for usage in usages
        if normalised(wanted)
        in {normalised(usage["name"].get(key)) for key in ("value", "localized_value")}
    ]
    limited = [usage for usage in found if usage["limit"] >= 0] or found  # below 0 means no limit
    return min(limited, key=lambda usage: usage["limit"] - usage["current_value"], default=None)


def cores(need: QuotaNeed, cores_each: int, family: str) -> int:
    """How many cores must be free for a need: the machines', and the upgrades' reserve."""
    exempt = normalised(family) in map(normalised, NO_RESERVE)
    reserve = RESERVE if need.endpoint and not exempt else 0.0
    # Rounded first: 5 * 1.2 is a little above 6 in floating point.
    return math.ceil(round(need.instances * (1 + reserve), 6)) * cores_each


def _lines(
    need: QuotaNeed, sizes: Mapping[str, Any], usages: list[Mapping[str, Any]], region: str
) -> list[QuotaLine]:
    size = sizes.get(need.size.lower())
    if size is None:
        raise OpsError(
            f"{need.purpose}: {region} has no {need.size}", "Choose another size or region."
        )
    needed = cores(need, size.v_cp_us, size.family)
    quotas = [REGION[need.low_priority]]
    if not need.low_priority:  # that tier has one limit for all families
        quotas.insert(0, size.family)
    return [_line(need, needed, quota, find_usage(usages, quota)) for quota in quotas]


def _line(need: QuotaNeed, needed: int, quota: str, usage: Mapping[str, Any] | None) -> QuotaLine:
    limit = usage["limit"] if usage and usage["limit"] >= 0 else None
    used = usage["current_value"] if usage else 0
    return QuotaLine(need.purpose, need.size, quota, used, limit, needed)


def _of_another_workspace(usage: Mapping[str, Any], cloud: Cloud) -> bool:
    place = (usage.get("id") or "").lower()
    return "/workspaces/" in place and not place.startswith(f"{cloud.workspace_path.lower()}/")
