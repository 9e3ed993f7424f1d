"""Answers that arrive in pieces: the call behind a stream, and the streams that callers iterate."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import Any

from ..errors import BadAnswerError, ConnectionLostError, Phi3Error, well_formed
from .calls import Call
from .contracts import Contract, Decoded, decode_event
from .events import notify_answered
from .messages import Message, Reply
from .params import Params
from .retry import Limits
from .session import Session
from .spans import call_span
from .sse import DONE, events
from .structured import PROMPT, Structure, visible_pieces
from .tool_calls import CallCollector
from .transport import Response

# Seconds that a stream's connection may take to end after the last event. After that it is closed and
# not kept for the next call.
DRAIN_S = 0.2


class StreamedCall(Call):
    """A call whose answer is passed on piece by piece. `result` is set after the last piece.

    This class is separate from `Stream`, so that the generator does not refer to the stream: an
    abandoned stream is then closed at once.
    """

    result: Reply | None = None
    structure: Structure | None = None  # what the answer must look like

    def pieces(self) -> Generator[str, None, None]:
        """Yield the pieces of the answer."""
        settings = self.session.settings
        with call_span(settings.endpoint, settings.model, self.messages, self.params) as span:
            self.deadline.restart()
            # No attempt after the first piece: text that a person has read is not taken back.
            first, rest = self.send(stream=True, finish=self._begin)
            with closing(rest):
                yield from self._visible(chain([first] if first else [], rest))
            if self.result:
                span.reply(self.result, self.redact)
                notify_answered(self.result)
                if self.structure:
                    self.result = self.structure.read(self.result, self.redact)

    def _visible(self, pieces: Iterator[str]) -> Iterator[str]:
        """Leave out tool calls that the model writes as text."""
        has_calls = self.structure and self.structure.tools and self.structure.schema_in == PROMPT
        return visible_pieces(pieces) if has_calls else pieces

    def _begin(
        self, contract: Contract, response: Response
    ) -> tuple[str, Generator[str, None, None]]:
        if not response.is_stream:
            self.result = self.read_reply(contract, response)
            return "", _single_piece(self.result.text)
        pieces = self._pieces_of(contract, response)
        first = next(pieces, "")
        self.session.can_stream = True
        return first, pieces

    def _pieces_of(self, contract: Contract, response: Response) -> Generator[str, None, None]:
        total = Decoded("")
        texts: list[str] = []
        calls = CallCollector()
        try:
            for event in _decoded_events(events(response.chunks())):
                if event is None:
                    total = replace(total, tool_calls=calls.calls())
                    self.result = self._end(contract, response, total, texts)
                    self.deadline.shorten(DRAIN_S)
                    continue
                calls.add(event.deltas)
                total = _merge(total, event)
                if event.text:
                    texts.append(event.text)
                    yield event.text
            if self.result is None:
                if total.finish_reason is None:
                    raise ConnectionLostError("the stream broke off before its end")
                total = replace(total, tool_calls=calls.calls())
                self.result = self._end(contract, response, total, texts)
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            if self.result is None:
                raise self.redacted(error) from None
        finally:
            response.close()

    def _end(
        self, contract: Contract, response: Response, total: Decoded, texts: list[str]
    ) -> Reply:
        if not texts and not total.tool_calls and total.finish_reason is None:
            raise BadAnswerError("the stream ended without an answer")
        return self.make_reply(contract, response, replace(total, text="".join(texts)))


class Stream(Iterator[str]):
    """Iterator over the pieces of an answer.

    Use it as a context manager if the loop may end early. `close` may be called from any thread.
    """

    def __init__(
        self,
        session: Session,
        messages: list[Message],
        params: Params,
        limits: Limits,
        structure: Structure | None = None,
    ) -> None:
        self._call = StreamedCall(session, messages, params, limits)
        self._call.structure = structure
        self._pieces = self._call.pieces()
        self._lock = threading.Lock()

    @property
    def reply(self) -> Reply | None:
        """The complete reply, or None before the last piece."""
        return self._call.result

    def __next__(self) -> str:
        with self._lock:
            return next(self._pieces)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Close the connection, without waiting for a thread that is waiting for a piece."""
        self._call.deadline.cancel()

    def close(self) -> None:
        """Stop reading and close the connection."""
        if not self._lock.acquire(blocking=False):
            self.cancel()  # another thread is waiting for a piece
            self._lock.acquire()
        try:
            self._pieces.close()
        finally:
            self._lock.release()


class AsyncStream(AsyncIterator[str]):
    """Asynchronous iterator over the pieces of an answer.

    Use it as an asynchronous context manager if the loop may end early.
    """

    def __init__(self, stream: Stream, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._stream = stream
        self._run = run

    @property
    def reply(self) -> Reply | None:
        """The complete reply, or None before the last piece."""
        return self._stream.reply

    async def __anext__(self) -> str:
        try:
            piece = await self._run(lambda: next(self._stream, None))
        except BaseException:
            self._stream.cancel()
            raise
        if piece is None:
            raise StopAsyncIteration
        return str(piece)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        self._stream.cancel()
        await self._run(self._stream.close)


def _decoded_events(events: Iterator[str]) -> Iterator[Decoded | None]:
    """Decode events, and yield None for the last one.

    An event may end with half a surrogate pair, whose other half is in the next event.
    """
    half, done = "", False
    for data in events:
        if data == DONE:
            done = True
            break
        event = decode_event(data)
        text = half + event.text
        half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        yield replace(event, text=well_formed(text.removesuffix(half)))
    if half:
        yield Decoded(well_formed(half))
    if done:
        yield None
        for _ in events:
            pass  # read on, so that the connection can be kept


def _single_piece(text: str) -> Generator[str, None, None]:
    if text:
        yield text


def _merge(total: Decoded, event: Decoded) -> Decoded:
    """Return what the events so far report apart from the text."""
    return Decoded(
        text="",
        usage=event.usage or total.usage,
        finish_reason=event.finish_reason or total.finish_reason,
        model=event.model or total.model,
    )
