"""One run of a flow that was exported as Python code: what `phi3 flow export` writes is built on it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, TypeVar

from ..client import CallGroup
from ..connections import require_connection
from .errors import LineError, invalid_input, missing_input, several_streams
from .model import PROMPT, FlowInput, Node
from .prompts import render_function
from .references import NodeReference, value_of
from .runner import Runner
from .values import convert

T = TypeVar("T")

MAX_THREADS = 256  # nodes and streams at once in this process
_END: Final = object()


class _Skipped:
    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED: Final = _Skipped()  # what a node returns that does not run


class Line:
    """One run of an exported flow: its inputs, and the outputs of its nodes.

    Args:
        inputs: the flow's inputs.

    Attributes:
        inputs: the values of the inputs, with defaults and converted to their types.
        stream: whether nodes that can stream return generators.
        streamed: name of the output that arrives in pieces, or None.
    """

    def __init__(self, inputs: Iterable[FlowInput] = ()) -> None:
        self._definitions = {item.name: item for item in inputs}
        self.inputs: dict[str, Any] = {}
        self.stream = False
        self.streamed: str | None = None
        self._outputs: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._skipped: set[str] = set()
        self._calls = CallGroup()

    def start(self, values: Mapping[str, Any], *, stream: bool = False) -> None:
        """Begin a run, and forget the outputs of an earlier one.

        Args:
            values: input name -> value; other names are ignored.
            stream: whether nodes that can stream return generators.

        Raises:
            LineError: an input is missing or has the wrong type.
        """
        self._outputs, self._skipped, self._calls = {}, set(), CallGroup()
        self._texts, self.stream, self.streamed = {}, stream, None
        self.inputs = line_inputs(self._definitions, values)

    # -- outputs of nodes --------------------------------------------------------------------------

    def output(self, node: str, properties: str = "") -> Any:
        """Return the output of a node, or a part of it; None if the node was skipped.

        Args:
            node: name of the node.
            properties: what follows `${node.output.` in the flow, such as `scores['a'][0].b`.

        Raises:
            LineError: the output does not have these properties.
        """
        return value_of(NodeReference(node, "output", properties), self.inputs, self._outputs)

    def argument(self, node: str, properties: str = "") -> Any:
        """Return what `output` returns, but `SKIPPED` if the node was skipped."""
        return SKIPPED if node in self._skipped else self.output(node, properties)

    def is_skipped(self, *nodes: str) -> bool:
        """Return whether all of these nodes were skipped."""
        return self._skipped.issuperset(nodes)

    # -- running nodes -----------------------------------------------------------------------------

    async def run(self, node: str, function: Callable[[Line], Awaitable[Any]]) -> None:
        """Run a node and keep its output.

        Args:
            node: name of the node.
            function: returns the output of the node, or `SKIPPED`.

        Raises:
            LineError: the node failed. The calls of other nodes are ended.
        """
        try:
            output = await function(self)
        except LineError:
            self.cancel()
            raise
        except Exception as error:
            self.cancel()
            raise LineError.of_node(node, error) from error
        except BaseException:
            self.cancel()
            raise
        if output is SKIPPED:
            self._skipped.add(node)
        self._outputs[node] = None if output is SKIPPED else output

    async def together(self, *runs: Awaitable[None]) -> None:
        """Wait for several runs of nodes; if one fails, the others are cancelled."""
        tasks = [asyncio.ensure_future(run) for run in runs]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def call(self, tool: Callable[..., Any], /, **arguments: Any) -> Any:
        """Call a tool: a coroutine in this event loop, any other function in a thread.

        A `SKIPPED` argument is left out if the parameter has a default; else it is None.
        """
        given = _without_skipped(tool, arguments)
        with self._calls.collect():
            if inspect.iscoroutinefunction(tool):
                return await tool(**given)
            output = await _runner().in_line_thread(lambda: tool(**given))
            return await output if inspect.iscoroutine(output) else output

    def cancel(self) -> None:
        """End the calls to endpoints that this line has started."""
        self._calls.cancel()

    # -- streams -----------------------------------------------------------------------------------

    def with_texts(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return outputs of the flow with complete texts in place of the generators that were read."""
        return {name: self._texts.get(name, value) for name, value in outputs.items()}

    async def join(self, outputs: Mapping[str, Any]) -> None:
        """Read all generators among the outputs of the flow, and keep their complete texts.

        Raises:
            LineError: a generator failed.
        """
        for name, source in outputs.items():
            if isinstance(source, (Iterator, AsyncIterator)):
                async for _ in self._read(name, source):
                    pass

    async def pieces(self, outputs: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """Yield the pieces of the output that is a generator, if any, and keep the complete text.

        Sets `streamed`. Leaving early ends the call and closes its connection.

        Raises:
            LineError: several outputs are generators, or the generator failed.
        """
        source = self._streamed_source(outputs)
        if self.streamed is not None:
            async for piece in self._read(self.streamed, source):
                yield piece

    async def events(self, outputs: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the complete outputs, and then each of the `pieces` with the name of its output.

        Raises:
            LineError: as for `pieces`.
        """
        source = self._streamed_source(outputs)
        complete = {name: value for name, value in outputs.items() if name != self.streamed}
        if complete or self.streamed is None:
            yield complete
        if self.streamed is not None:
            async for piece in self._read(self.streamed, source):
                yield {self.streamed: piece}

    def _streamed_source(self, outputs: Mapping[str, Any]) -> Any:
        """Return the generator among the outputs, and set `streamed` to its name."""
        sources = {n: v for n, v in outputs.items() if isinstance(v, (Iterator, AsyncIterator))}
        if len(sources) > 1:
            raise several_streams(sources)
        self.streamed = next(iter(sources), None)
        return sources.get(self.streamed or "")

    async def _read(self, name: str, source: Any) -> AsyncGenerator[str, None]:
        """Yield the pieces of a generator, and keep the complete text of its output."""
        texts: list[str] = []
        is_complete = False
        try:
            while (piece := await _next(source)) is not _END:
                texts.append(str(piece))
                yield texts[-1]
            is_complete = True
        except Exception as error:
            raise LineError.of_system(error) from error
        finally:
            if not is_complete:
                self.cancel()
        self._texts[name] = "".join(texts)


def line_inputs(inputs: Mapping[str, FlowInput], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a line with defaults, converted to their types.

    Raises:
        LineError: an input is missing or has the wrong type.
    """
    complete = dict(values)
    for name, item in inputs.items():
        if name not in complete:
            if item.default is None:
                raise missing_input(name)
            complete[name] = deepcopy(item.default)  # a tool may change its list
    for name, item in inputs.items():
        try:
            complete[name] = convert(complete[name], item.type)
        except Exception as error:
            raise invalid_input(name, complete[name], item.type, error) from error
    return complete


def prompt_tool(file: Path) -> Callable[..., str]:
    """Return the tool of a prompt node: it renders a jinja2 template, in a sandbox.

    Raises:
        FlowError: the template is not valid.
    """
    node = Node(file.stem, PROMPT, file.name, None, {})
    return render_function(node, file.read_text(encoding="utf-8"))


@functools.cache
def connection(name: str) -> Any:
    """Return a connection, which is looked up once in this process.

    Raises:
        ConfigError: it does not exist, or cannot be read.
    """
    return require_connection(name)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a function that is not async, whether or not its thread has an event loop."""
    return _runner().in_loop(coroutine)


@functools.cache
def _runner() -> Runner:
    return Runner(MAX_THREADS)


def _without_skipped(tool: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    if not any(value is SKIPPED for value in arguments.values()):
        return arguments
    parameters = inspect.signature(tool).parameters
    given = {}
    for name, value in arguments.items():
        if value is not SKIPPED:
            given[name] = value
        elif name not in parameters or parameters[name].default is inspect.Parameter.empty:
            given[name] = None
    return given


async def _next(source: Any) -> Any:
    if isinstance(source, AsyncIterator):
        return await anext(source, _END)
    return await _runner().in_line_thread(lambda: next(source, _END))
