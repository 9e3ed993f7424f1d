"""Batch runs on Azure, on a cluster or in a Foundry project: submit, follow, and fetch the outputs.

It may import `publish` and every room below it.
"""

from __future__ import annotations

from .cluster import ClusterSubmission
from .foundry import FOUNDRY_RUN_PREFIX, FoundrySubmission
from .request import BatchRequest, ClusterRequest
from .submission import BatchSubmission

__all__ = [
    "BatchRequest",
    "BatchSubmission",
    "ClusterRequest",
    "ClusterSubmission",
    "FOUNDRY_RUN_PREFIX",
    "FoundrySubmission",
]
