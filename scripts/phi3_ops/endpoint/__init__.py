"""The local endpoint: Azure ML's front end, one process per model, injected faults, background processes.

It does not import `phi3_tools`: client and endpoint implement the same documents independently, and are
checked against the same golden files. It may import `pf` and `data`.
"""

from __future__ import annotations

from .background import (
    ENDPOINT_KEY_VARIABLE,
    start_background,
    start_endpoint,
    stop_all_endpoints,
    stop_endpoint,
)
from .container import Deployment
from .fault_rules import load_fault_rules
from .registration import (
    ENDPOINTS_FOLDER,
    RunningEndpoint,
    find_endpoint,
    own_endpoint_name,
    register_endpoint,
    running_endpoints,
)
from .server import serve_models

__all__ = [
    "Deployment",
    "ENDPOINTS_FOLDER",
    "ENDPOINT_KEY_VARIABLE",
    "RunningEndpoint",
    "find_endpoint",
    "load_fault_rules",
    "own_endpoint_name",
    "register_endpoint",
    "running_endpoints",
    "serve_models",
    "start_background",
    "start_endpoint",
    "stop_all_endpoints",
    "stop_endpoint",
]
