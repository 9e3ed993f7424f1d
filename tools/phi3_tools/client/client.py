"""The client of one endpoint: any contract, complete answers or streams, sync or async."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..connections import require_connection
from ..errors import InvalidAnswerError, PromptTooLongError
from .calls import Call
from .contracts import AUTO
from .events import notify_answered
from .messages import ESTIMATE, Message, Reply, Usage, check_messages, fit
from .params import Params
from .retry import Deadline, Limits
from .session import Session
from .settings import Settings, read_settings
from .spans import call_span
from .streams import AsyncStream, Stream
from .structured import Structure, can_repair, plain_messages, read_structure, repair_messages
from .transport import POOL_SIZE
from .workers import Workers

T = TypeVar("T")


@dataclass(frozen=True)
class _Request:
    """A prepared request: the chat, its messages in the contract's form, and the answer's form."""

    chat: list[Message]
    messages: list[Message]
    structure: Structure | None


class Phi3Client:
    """Client of one Phi-3 endpoint. Safe to use from many threads; keep it while the process lives.

    Args:
        settings: a checked connection; `from_connection` makes it from a connection's fields.
        pool_size: number of connections to keep open, and of `achat` calls in flight at most.

    Attributes:
        settings: the checked connection.

    Example:
        >>> client = Phi3Client.from_connection({"endpoint": url, "key": key})
        >>> client.chat("Who founded Microsoft?", Params(temperature=0)).text
    """

    def __init__(self, settings: Settings, *, pool_size: int = POOL_SIZE) -> None:
        self.settings = settings
        self._session = Session(settings, pool_size)
        self._pool_size = pool_size
        self._workers: Workers | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_connection(cls, connection: Any = None, **overrides: Any) -> Phi3Client:
        """Return a client for a connection.

        Args:
            connection: the name of a connection (see `phi3_tools.connections`), a CustomConnection, a
                mapping of its fields, or None for the environment (`PHI3_ENDPOINT`, `PHI3_KEY`, …).
            overrides: fields of `Settings` that replace the connection's.

        Raises:
            ConfigError: the connection does not exist, or a field is missing or wrong; the message names
                it and the fix.
        """
        if isinstance(connection, str):
            connection = require_connection(connection)
        return cls(replace(read_settings(connection), **overrides))

    @property
    def contract(self) -> str:
        """Name of the endpoint's contract, or `auto` while that is not known."""
        detected = self._session.detected_contract
        return detected.name if detected else AUTO

    def chat(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> Reply:
        """Send a chat and return the complete answer.

        Args:
            messages: a question, or messages with `role` and `content`.
            params: generation parameters.
            context_window: tokens that prompt and answer share; the oldest turns are left out to fit.
                None sends everything.
            limits: timeouts and attempts of this call; by default those of the settings.

        Raises:
            Phi3Error: the subclass names the cause.
        """
        return self._chat(messages, params, context_window, limits, None)

    def stream(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> Stream:
        """Send a chat and return the answer as a stream; one piece if the endpoint does not stream.

        Arguments and exceptions are those of `chat`. The request is sent when the first piece is read.
        Closing the stream early closes the connection, so that the endpoint can stop generating. The
        total time limit includes the time that the reader takes.

        An answer that must fit a schema or tools is checked after its last piece, and not repaired.
        """
        request = self._prepare(messages, params, context_window)
        limits = limits or self.settings.limits
        return Stream(self._session, request.messages, params, limits, request.structure)

    async def achat(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> Reply:
        """Run `chat` in a thread, without blocking the event loop.

        Arguments and exceptions are those of `chat`. Cancelling the task closes the connection at once.
        """
        deadline = Deadline((limits or self.settings.limits).deadline_s)
        try:
            return await self._in_thread(
                lambda: self._chat(messages, params, context_window, limits, deadline)
            )
        finally:
            deadline.cancel()  # without effect if the call has ended

    def astream(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> AsyncStream:
        """Return the answer as a stream for `async for`, which does not block the event loop.

        Arguments and exceptions are those of `stream`. Cancelling the task that waits for a piece closes
        the connection at once.
        """
        stream = self.stream(messages, params, context_window=context_window, limits=limits)
        return AsyncStream(stream, self._in_thread)

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            workers, self._workers = self._workers, None
        self._session.close()
        if workers:
            workers.close()

    def __enter__(self) -> Phi3Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _chat(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params,
        context_window: int | None,
        limits: Limits | None,
        deadline: Deadline | None,
    ) -> Reply:
        request = self._prepare(messages, params, context_window)
        limits = limits or self.settings.limits
        if deadline:
            deadline.restart()  # the time that the call waited for a thread does not count
        deadline = deadline or Deadline(limits.deadline_s)
        call = Call(self._session, request.messages, params, limits, deadline)
        reply = self._send(call)
        if request.structure is None:
            return reply
        try:
            return request.structure.read(reply, call.redact)
        except InvalidAnswerError as error:
            if not can_repair(error):
                raise
            chat = self._repair_chat(request, error, params, context_window)
        call = Call(self._session, chat, params, limits, deadline)
        return request.structure.read(_with_first(self._send(call), reply), call.redact)

    def _send(self, call: Call) -> Reply:
        settings = self.settings
        with call_span(settings.endpoint, settings.model, call.messages, call.params) as span:
            reply = call.send(stream=False, finish=call.read_reply)
            span.reply(reply, call.redact)
            notify_answered(reply)
            return reply

    def _prepare(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params,
        context_window: int | None,
    ) -> _Request:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        chat = check_messages(messages)
        structure = read_structure(params, has_fields=self._session.has_tools)
        chat = self._fit(chat, structure, params, context_window, last_turns=1)
        return _Request(chat, self._placed(chat, structure), structure)

    def _repair_chat(
        self,
        request: _Request,
        error: InvalidAnswerError,
        params: Params,
        context_window: int | None,
    ) -> list[Message]:
        """Return the messages of a second attempt; if they do not fit, the error is final."""
        chat = [*request.chat, *repair_messages(error)]
        try:
            chat = self._fit(chat, request.structure, params, context_window, last_turns=2)
        except PromptTooLongError:
            raise error from None
        return self._placed(chat, request.structure)

    def _fit(
        self,
        chat: list[Message],
        structure: Structure | None,
        params: Params,
        context_window: int | None,
        *,
        last_turns: int,
    ) -> list[Message]:
        if context_window is None:
            return chat
        return fit(
            chat,
            context_window=context_window,
            max_new_tokens=params.max_new_tokens or 0,
            counter=self._session.counter or ESTIMATE,
            added_text=structure.added_text if structure else "",
            last_turns=last_turns,
        )

    def _placed(self, chat: list[Message], structure: Structure | None) -> list[Message]:
        """Return the messages in the form of the endpoint's contract."""
        if structure:
            return structure.place(chat)
        return chat if self._session.has_tools else plain_messages(chat)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._workers is None:
                self._workers = Workers(self._pool_size)
            workers = self._workers
        return await workers.run(work)


def _with_first(reply: Reply, first: Reply) -> Reply:
    """Return the reply of a second attempt, with what the first one has cost."""
    usage = reply.usage
    if usage and first.usage:
        usage = Usage(
            usage.prompt_tokens + first.usage.prompt_tokens,
            usage.completion_tokens + first.usage.completion_tokens,
            usage.counted or first.usage.counted,
        )
    return replace(reply, usage=usage, attempts=reply.attempts + first.attempts, repairs=1)
