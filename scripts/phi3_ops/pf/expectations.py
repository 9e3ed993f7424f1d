"""What this project expects of Prompt flow below its public API, and whether the installed version fits.

The table is from promptflow 1.18.5. Only this room uses what is in the table. If a part is missing or has
changed, batches run on Prompt flow's own engine and served flows keep Prompt flow's own middlewares.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .client import prepare

TESTED_SERIES = "1.18."  # pyproject.toml declares >=1.18.5,<1.19
LINE_NUMBER = "line_number"  # key in files of a run: the line's number in the data file, from 0
COMPLETED = "Completed"  # status of a run, and of a line, that ended without an error

_ENGINE = "promptflow._sdk._orchestrator.run_submitter:BatchEngine"
_STORAGE = "promptflow._sdk.operations._local_storage_operations"
_MIDDLEWARE = "promptflow.core._serving.v2.middleware.middleware"
_THREAD_POOL = "promptflow.executor._async_nodes_scheduler:ThreadPoolExecutor"


@dataclasses.dataclass(frozen=True)
class Feature:
    """One use of Prompt flow's internals.

    Attributes:
        package: the distribution that contains the parts.
        signatures: function or class -> the names of its parameters.
        identities: name in a module of Prompt flow -> the object that it refers to.
    """

    package: str
    signatures: dict[str, list[str]]
    identities: dict[str, Any]


# `limited_engine` replaces these parts of the batch engine, or calls them.
BATCH_ENGINE = Feature(
    package="promptflow-devkit",
    signatures={
        f"{_ENGINE}._exec_in_task": [
            "self",
            "batch_inputs",
            "run_id",
            "output_dir",
            "raise_on_line_failure",
            "previous_line_results",
        ],
        f"{_ENGINE}._exec_batch": ["self", "line_results", "batch_inputs", "run_id"],
        f"{_STORAGE}:LocalStorageOperations.dump_inputs_and_outputs": ["self"],
        f"{_STORAGE}:json_dump": ["obj", "file"],
        "promptflow._core.tools_manager:_get_entry_points_by_group": ["group"],
        "promptflow._core.tools_manager:collect_package_tools": ["keys"],
        "promptflow.batch._batch_inputs_processor:load_data": [
            "local_path",
            "logger",
            "max_rows_count",
        ],
        "promptflow.tracing._utils:serialize": ["value", "remove_null", "serialization_funcs"],
    },
    identities={
        f"{_STORAGE}:asdict": dataclasses.asdict,
        _THREAD_POOL: ThreadPoolExecutor,
    },
)
# `use_inline_middleware` replaces these parts of the serving app, or calls them.
SERVING_APP = Feature(
    package="promptflow-core",
    signatures={
        f"{_MIDDLEWARE}:MonitorMiddleware": ["app", "flow_monitor"],
        f"{_MIDDLEWARE}:error_to_response": ["e", "logger"],
    },
    identities={},
)
# `shared_tool_threads` replaces this part of the serving app.
TOOL_THREADS = Feature(
    package="promptflow-core",
    signatures={},
    identities={_THREAD_POOL: ThreadPoolExecutor},
)


def is_supported(feature: Feature) -> bool:
    """Return whether the installed Prompt flow is a tested version and has every part of a feature."""
    if not installed_version(feature.package).startswith(TESTED_SERIES):
        return False
    prepare()
    try:
        if feature.package == "promptflow-devkit":
            # Its other modules import each other in a circle, unless the client comes first.
            importlib.import_module("promptflow.client")
        signatures = {name: _parameters(name) for name in feature.signatures}
        return signatures == feature.signatures and all(
            pkgutil.resolve_name(name) is part for name, part in feature.identities.items()
        )
    except (ImportError, AttributeError, ValueError):
        return False


def untested_warning() -> str | None:
    """Return a warning if batches have to run on Prompt flow's own engine, or None."""
    if is_supported(BATCH_ENGINE):
        return None
    return (
        f"Prompt flow {installed_version(BATCH_ENGINE.package)} is untested; using its own engine, "
        "which does not slow down on 429"
    )


def installed_version(package: str) -> str:
    """Return the version of an installed package, or an empty string if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _parameters(name: str) -> list[str]:
    part: Callable[..., Any] = pkgutil.resolve_name(name)
    return list(inspect.signature(part).parameters)
