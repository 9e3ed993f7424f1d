"""The environment variables of a flow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

from .errors import FlowError
from .model import Flow

_REFERENCE = re.compile(r"\$\{([^.]+)\.([^.]+)}")


def set_environment(flow: Flow, connections: Callable[[str], Any]) -> None:
    """Set the `environment_variables` of a flow for this process, as promptflow does.

    A value such as `${connection.field}` is replaced by the field of the connection.

    Raises:
        FlowError: the connection or its field does not exist.
    """
    for name, text in environment_texts(flow).items():
        reference = connection_reference(text)
        if reference:
            text = _field(name, reference[1], reference[2], connections)
        os.environ[name] = text


def environment_texts(flow: Flow) -> dict[str, str]:
    """Return the `environment_variables` of a flow as texts; references are not replaced."""
    return {
        str(name): json.dumps(value) if isinstance(value, (dict, list)) else str(value)
        for name, value in flow.environment_variables.items()
    }


def connection_reference(text: str) -> re.Match[str] | None:
    """Return the connection and the field to which the text of a variable refers, or None."""
    return _REFERENCE.fullmatch(text.strip())


def _field(name: str, connection: str, field: str, connections: Callable[[str], Any]) -> str:
    try:
        return str(connections(connection)[field])
    except Exception as error:
        where = f"environment_variables.{name}"
        reason = f"the field {field!r} of the connection {connection!r} cannot be read"
        fix = f"create it with `phi3 connect --name {connection}`"
        raise FlowError(reason, fix, field=where, code="GetConnectionError") from error
