"""Put a model or a flow behind an Azure ML online endpoint, and manage its keys.

It may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .flow import FlowDeployment
from .keys import plan_key_connection, rotate_keys
from .model import ModelDeployment
from .rollout import Deployment, Rollout, RolloutOptions

__all__ = [
    "Deployment",
    "FlowDeployment",
    "ModelDeployment",
    "Rollout",
    "RolloutOptions",
    "plan_key_connection",
    "rotate_keys",
]
