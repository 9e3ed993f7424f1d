"""Runs the lines of a batch with code that was exported from a flow, or with a workflow of one's own."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_tools.flow import AggregationResult, LineError, LineResult

from ..errors import OpsError, first_line

MODULES = ("workflow", "flow")  # what `phi3 flow export` writes


class AppEngine:
    """The part of `phi3_tools.flow.Engine` that a batch needs, over other code.

    Args:
        app: folder of `phi3 flow export`, or `MODULE:FUNCTION`, where the function returns a new workflow
            of Agent Framework.

    Raises:
        OpsError: the folder, the module or the function does not exist, or cannot be imported.
    """

    def __init__(self, app: str) -> None:
        self._evaluate: Any = None
        self.inputs: list[str] | None = None
        if Path(app).is_dir():
            self._run_line, self.inputs = self._load_folder(Path(app).resolve())
        else:
            self._run_line = _load_factory(app)

    @property
    def has_aggregation(self) -> bool:
        """Whether there are metrics over all lines."""
        return self._evaluate is not None

    def run(self, inputs: Mapping[str, Any]) -> LineResult:
        """Run one line, and return its result."""
        result = LineResult(dict(inputs), started=time.time())
        start = time.perf_counter()
        try:
            result.outputs, line = asyncio.run(self._run_line(inputs))
            result.aggregation_inputs = {"line": line}
        except LineError as error:
            result.error = error
        except Exception as error:  # whatever the code raises fails its line only
            result.error = LineError.of_system(error)
        result.seconds = time.perf_counter() - start
        return result

    def aggregate(self, lines: Sequence[LineResult]) -> AggregationResult:
        """Return the metrics over the lines that completed."""
        completed = [line.aggregation_inputs["line"] for line in lines if line.error is None]
        try:
            metrics = asyncio.run(self._evaluate.aggregate_lines(completed))
        except LineError as error:
            return AggregationResult(error=error)
        return AggregationResult(metrics=dict(metrics))

    def __enter__(self) -> AppEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def _load_folder(self, folder: Path) -> tuple[Callable[..., Any], list[str]]:
        name = next((name for name in MODULES if (folder / f"{name}.py").is_file()), None)
        if name is None:
            fix = "Give a folder that `phi3 flow export` wrote, or MODULE:FUNCTION."
            raise OpsError(f"{folder} has neither workflow.py nor flow.py", fix)
        sys.path.insert(0, str(folder))
        module = _import(name, f"{folder / name}.py")
        if (folder / "evaluate.py").is_file():
            self._evaluate = _import("evaluate", str(folder / "evaluate.py"))

        async def run_line(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
            line = await module.run_line(inputs)
            return dict(module.outputs(line)), line

        return run_line, [item.name for item in module.INPUTS]


def _load_factory(app: str) -> Callable[..., Any]:
    """Return a function that runs one line with a new workflow of Agent Framework."""
    module_name, colon, function = app.partition(":")
    if not colon:
        raise OpsError(f"{app} is not a folder", "Give a folder, or MODULE:FUNCTION.")
    sys.path.insert(0, "")  # modules of the current folder, as `python -m` finds them
    factory = getattr(_import(module_name, module_name), function, None)
    if not callable(factory):
        raise OpsError(f"{module_name} has no function {function!r}", "Correct --app.")

    async def run_line(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        result = await factory().run(dict(inputs))
        outputs = result.get_outputs()
        if not outputs:
            raise RuntimeError("the workflow ended without an output")
        last = outputs[-1]
        return dict(last) if isinstance(last, Mapping) else {"output": last}, None

    return run_line


def _import(name: str, shown: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise OpsError(f"{shown} cannot be imported: {first_line(error)}") from error
