"""Prompt flow on this machine: its client, its connections, its batch engine and its web middleware.

This is the one room that reaches below Prompt flow's public API, for the versions declared in
pyproject.toml. It may import `phi3_tools` and the top-level modules (errors, paths, files, hashing).
"""

from __future__ import annotations

from .client import QUIET_ENVIRONMENT, pf_client, quiet_environment
from .connections import (
    DEFAULT_CONNECTION,
    NO_KEY,
    PROBE_QUESTION,
    connection_key,
    delete_connection,
    load_connection,
    probe_endpoint,
    require_connection,
    save_connection,
)
from .engine import LINE_NUMBER, engine_is_supported, limited_engine, shared_tool_threads
from .keyring_store import KEYRING_VARIABLE, OwnerOnlyFileKeyring
from .middleware import App, Scope, use_inline_middleware
from .pace import CallListener, ConcurrencyLimit, listening

__all__ = [
    "App",
    "CallListener",
    "ConcurrencyLimit",
    "DEFAULT_CONNECTION",
    "KEYRING_VARIABLE",
    "LINE_NUMBER",
    "NO_KEY",
    "OwnerOnlyFileKeyring",
    "PROBE_QUESTION",
    "QUIET_ENVIRONMENT",
    "Scope",
    "connection_key",
    "delete_connection",
    "engine_is_supported",
    "limited_engine",
    "listening",
    "load_connection",
    "pf_client",
    "probe_endpoint",
    "quiet_environment",
    "require_connection",
    "save_connection",
    "shared_tool_threads",
    "use_inline_middleware",
]
