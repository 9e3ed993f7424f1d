"""Exports of flows, imported into the process of a test."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from phi3_ops.publish import export_flow
from phi3_tools.flow import Engine, LineError

# Form -> the module that runs the flow.
MODULES = {"agent-framework": "workflow", "fastapi": "flow", "evaluator": "flow"}


@dataclass
class Export:
    """An exported folder, and its module with the flow."""

    folder: Path
    module: ModuleType

    def run(self, values: Mapping[str, Any], variant: str | None = None) -> Any:
        """Return the outputs of one line, or the codes, message and node of its failure."""
        return asyncio.run(self.arun(values, variant))

    async def arun(self, values: Mapping[str, Any], variant: str | None = None) -> Any:
        """Run one line as `run` does."""
        try:
            return self.module.outputs(await self.module.run_line(values, variant))
        except LineError as error:
            return error.codes, error.message, error.node


@contextmanager
def exported(flow: Path | str, form: str, folder: Path) -> Iterator[Export]:
    """Export a flow and import it; its modules are forgotten afterwards."""
    export_flow(Path(flow), form, folder)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield Export(folder, importlib.import_module(MODULES[form]))
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def engine_result(engine: Engine, values: Mapping[str, Any]) -> Any:
    """Return what `Export.run` returns, of the engine."""
    result = engine.run(values)
    error = result.error
    return (error.codes, error.message, error.node) if error else result.outputs
