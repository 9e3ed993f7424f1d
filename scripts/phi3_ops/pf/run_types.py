"""A run of a store, and a run that is to be executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

# Further values of a run's status, besides COMPLETED.
RUNNING, CANCELED, FAILED = "Running", "Canceled", "Failed"
# Engines that run the lines of a batch: this project's, and Prompt flow's.
PHI3, PROMPTFLOW = "phi3", "promptflow"

# Node -> input -> name of the connection that replaces the flow's.
Connections = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class StoredRun:
    """A run of the store.

    Attributes:
        name: its name, for `pf run show --name`.
        title: its display name.
        status: for example `COMPLETED`.
        folder: its outputs, inputs, records and a copy of its flow.
        flow: folder or file of its flow, or None.
        data: its data file, or None.
        base: name of the run whose outputs it reads, or None.
        column_mapping: flow input -> `${data.x}`, `${run.outputs.x}` or a constant.
        properties: further properties, by name.
        created_on: the time at which it was created.
    """

    name: str
    title: str
    status: str
    folder: Path
    flow: Path | None
    data: Path | None
    base: str | None
    column_mapping: Mapping[str, str]
    properties: Mapping[str, Any]
    created_on: datetime


@dataclass(frozen=True)
class NewRun:
    """A run to execute; the fields are those of `StoredRun`.

    Attributes:
        connections: node -> input -> connection, which replaces the flow's.
        resume_from: name of the run whose completed lines are copied, or None.
        engine: `PHI3` or `PROMPTFLOW`.
        variant: `node.variant` that replaces the node's default one, or None.
        app: folder or `MODULE:FUNCTION` of the code that runs instead of a flow, or None.
    """

    name: str
    title: str
    flow: Path | None
    data: Path
    base: str | None
    column_mapping: Mapping[str, str]
    connections: Connections | None
    properties: Mapping[str, Any] = field(default_factory=dict)
    resume_from: str | None = None
    engine: str = PHI3
    variant: str | None = None
    app: str | None = None
