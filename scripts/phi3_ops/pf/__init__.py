"""Prompt flow on this machine: client, connections, stored runs, batch engine and serving app.

This is the only room that reaches below Prompt flow's public API; `expectations` lists what it expects
there and checks it. It may import `phi3_tools` and the top-level modules (errors, paths, files, hashing).
"""

from __future__ import annotations

from .client import PF_COMMAND, QUIET_ENVIRONMENT, pf_client, prepare, quiet_environment
from .connections import (
    DEFAULT_CONNECTION,
    NO_KEY,
    PROBE_QUESTION,
    StoredConnection,
    connection_key,
    connection_url,
    delete_connection,
    find_connection,
    import_promptflow_connections,
    list_connections,
    load_connection,
    probe_endpoint,
    refuse_replacing_connection,
    require_connection,
    save_connection,
    stopped_endpoint,
)
from .executor import PromptflowExecutor
from .expectations import COMPLETED, LINE_NUMBER, untested_warning
from .keyring_store import KEYRING_VARIABLE, OwnerOnlyFileKeyring
from .middleware import App, Scope
from .pace import BatchCallObserver, ConcurrencyLimit
from .run_types import (
    CANCELED,
    FAILED,
    PHI3,
    PROMPTFLOW,
    RUNNING,
    Connections,
    NewRun,
    StoredRun,
)
from .serving import close_tool_stream, create_flow_app, shared_tool_threads, wrap_line_execution
from .store_database import is_installed, require_promptflow
from .stored_runs import (
    add_run,
    begin_run,
    delete_stored_run,
    end_run,
    execute_run,
    find_stored_run,
    list_stored_runs,
    set_run_status,
)

__all__ = [
    "App",
    "BatchCallObserver",
    "CANCELED",
    "COMPLETED",
    "ConcurrencyLimit",
    "Connections",
    "DEFAULT_CONNECTION",
    "FAILED",
    "KEYRING_VARIABLE",
    "LINE_NUMBER",
    "NO_KEY",
    "NewRun",
    "OwnerOnlyFileKeyring",
    "PF_COMMAND",
    "PHI3",
    "PROBE_QUESTION",
    "PROMPTFLOW",
    "PromptflowExecutor",
    "QUIET_ENVIRONMENT",
    "RUNNING",
    "Scope",
    "StoredConnection",
    "StoredRun",
    "add_run",
    "begin_run",
    "close_tool_stream",
    "connection_key",
    "connection_url",
    "create_flow_app",
    "delete_connection",
    "delete_stored_run",
    "end_run",
    "execute_run",
    "find_connection",
    "find_stored_run",
    "import_promptflow_connections",
    "is_installed",
    "list_connections",
    "list_stored_runs",
    "load_connection",
    "pf_client",
    "prepare",
    "probe_endpoint",
    "quiet_environment",
    "refuse_replacing_connection",
    "require_connection",
    "require_promptflow",
    "save_connection",
    "set_run_status",
    "shared_tool_threads",
    "stopped_endpoint",
    "untested_warning",
    "wrap_line_execution",
]
