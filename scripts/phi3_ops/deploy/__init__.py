"""Put a model or a flow behind an Azure ML online endpoint, and manage its keys.

It may import `training`, `chat`, `runs` and every room below them.
"""

from __future__ import annotations

from .flow import FlowDeployer
from .keys import plan_key_connection, rotate_keys
from .model import ModelDeployer
from .rollout import RolloutOptions

__all__ = [
    "FlowDeployer",
    "ModelDeployer",
    "RolloutOptions",
    "plan_key_connection",
    "rotate_keys",
]
