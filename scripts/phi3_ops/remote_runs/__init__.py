"""Batch runs on Azure, on a cluster or in a Foundry project: submit, follow, and bring the outputs back.

It may import `publish` and every room below it.
"""

from __future__ import annotations

from .cluster import ClusterRequest, ClusterSubmission
from .foundry import FOUNDRY_RUN_PREFIX, FoundrySubmission
from .submission import BatchRequest, BatchSubmission

__all__ = [
    "BatchRequest",
    "BatchSubmission",
    "ClusterRequest",
    "ClusterSubmission",
    "FOUNDRY_RUN_PREFIX",
    "FoundrySubmission",
]
