"""`phi3 flow check`: whether an uploaded flow would run, without uploading it.

It checks the flow's connections, the endpoints of the connections, and the flow itself: it runs the
staged copy in a clean virtual environment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..flows import FlowDefinition
from ..pf import PROMPTFLOW
from .clean_run import run_clean
from .connection_fields import ConnectionFields, check_connection

MAX_SHOWN = 80  # characters of an output that are printed


def check_flow(
    folder: Path,
    read_connection: Callable[[str], ConnectionFields],
    say: Callable[[str], None],
    *,
    limit_s: float,
    engine: str = PROMPTFLOW,
) -> None:
    """Prove that a staged flow would run.

    Args:
        folder: the staged flow.
        read_connection: returns the fields of a connection.
        say: prints a line of progress.
        limit_s: time limit of each step, in seconds.
        engine: `PROMPTFLOW`, on which uploaded flows run, or `PHI3`.

    Raises:
        OpsError: a connection, its endpoint, the requirements or the flow fails; the first failure ends
            the check.
    """
    flow = FlowDefinition.read(folder)
    connections = {}
    for name in sorted(set(flow.connection_names({}).values())):
        fields = read_connection(name)
        say(f"connection {name!r} exists; its endpoint {check_connection(name, fields)}")
        connections[name] = fields
    if not connections:
        say("no node uses an endpoint")
    outputs = run_clean(folder, connections, say, limit_s=limit_s, engine=engine)
    texts = ", ".join(f"{name}: {_shortened(value)}" for name, value in outputs.items())
    say(f"it runs: {texts or 'it has no output'}")


def _shortened(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
