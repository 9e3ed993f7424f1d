"""A line whose answer arrives in pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..client import CallGroup
from .errors import LineError, several_streams
from .results import LineResult
from .runner import Runner

_END = object()
_CLOSE_S = 1.0  # seconds to wait for a thread that reads from a generator


class _Pieces:
    """The one output of a line that is a generator, taken out of its result."""

    def __init__(self, result: LineResult, runner: Runner, calls: CallGroup) -> None:
        self.result = result
        self._runner = runner
        self._calls = calls
        streams = {
            name: value
            for name, value in result.outputs.items()
            if isinstance(value, (Iterator, AsyncIterator))
        }
        if len(streams) > 1:
            result.error = several_streams(streams)
            result.outputs, streams = {}, {}
        self.name: str | None = next(iter(streams), None)
        self._source: Any = streams.get(self.name) if self.name else None
        self._texts: list[str] = []
        if self.name:
            result.outputs = {k: v for k, v in result.outputs.items() if k != self.name}

    def _add(self, piece: Any) -> str:
        self._texts.append(str(piece))
        return self._texts[-1]

    def _end(self) -> None:
        if self.name and self._source is not None:
            self.result.outputs[self.name] = "".join(self._texts)
        self._source = None

    def _fail(self, cause: Exception) -> LineError:
        self._source = None
        self.result.error = LineError.of_system(cause)
        return self.result.error


class LineStream(_Pieces, Iterator[str]):
    """The pieces of the output that streams. Use it as a context manager if you may leave it early.

    Attributes:
        name: name of the output that arrives in pieces, or None if the line failed or does not stream.
        result: the line's result. Its `outputs` have the complete text after the last piece.

    Raises:
        LineError: the node failed after its first piece; `result.error` is set as well.
    """

    def __next__(self) -> str:
        if self._source is None:
            raise StopIteration
        try:
            piece = self._pull()
        except Exception as error:
            raise self._fail(error) from error
        if piece is _END:
            self._end()
            raise StopIteration
        return self._add(piece)

    def _pull(self) -> Any:
        if isinstance(self._source, Iterator):
            return next(self._source, _END)
        return self._runner.in_loop(_next(self._source))

    def close(self) -> None:
        """End the generator, which closes the endpoint's connection."""
        source, self._source = self._source, None
        self._calls.cancel()
        if isinstance(source, Iterator):
            _close_generator(source)
        elif source is not None and hasattr(source, "aclose"):
            self._runner.in_loop(_close(source))

    def __enter__(self) -> LineStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncLineStream(_Pieces, AsyncIterator[str]):
    """The pieces of the output that streams, for `async for`; attributes as `LineStream`."""

    async def __anext__(self) -> str:
        if self._source is None:
            raise StopAsyncIteration
        source = self._source
        try:
            if isinstance(source, Iterator):
                piece = await self._runner.in_line_thread(lambda: next(source, _END))
            else:
                piece = await _next(source)
        except asyncio.CancelledError:
            self._calls.cancel()
            raise
        except Exception as error:
            raise self._fail(error) from error
        if piece is _END:
            self._end()
            raise StopAsyncIteration
        return self._add(piece)

    async def read(self, receive: Callable[[str], None]) -> None:
        """Pass every piece to a function, as `async for` would; one thread reads a generator to its end.

        Args:
            receive: called in the event loop with each piece, as soon as it arrives.

        Raises:
            LineError: the node failed; `result.error` is set as well.
        """
        source, loop = self._source, asyncio.get_running_loop()
        if not isinstance(source, Iterator):
            async for piece in self:
                receive(piece)
            return

        def read_all() -> None:
            for piece in source:
                if self._source is None:  # closed meanwhile
                    return
                loop.call_soon_threadsafe(receive, self._add(piece))

        try:
            await self._runner.in_line_thread(read_all)
        except asyncio.CancelledError:
            self._source = None
            self._calls.cancel()
            raise
        except Exception as error:
            raise self._fail(error) from error
        self._end()

    async def aclose(self) -> None:
        """End the generator, which closes the endpoint's connection."""
        source, self._source = self._source, None
        self._calls.cancel()
        if isinstance(source, Iterator):
            await self._runner.in_line_thread(lambda: _close_generator(source))
        elif source is not None and hasattr(source, "aclose"):
            await source.aclose()

    async def __aenter__(self) -> AsyncLineStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


async def _next(source: Any) -> Any:
    return await anext(source, _END)


async def _close(source: Any) -> None:
    await source.aclose()


def _close_generator(source: Any) -> None:
    deadline = time.monotonic() + _CLOSE_S
    while hasattr(source, "close"):
        try:
            source.close()
            return
        except ValueError:  # another thread is waiting for a piece; its call has been ended
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
