"""The client: one endpoint, any contract, whole answers or streams, sync or async."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from .calls import Call, Stream
from .contracts import AUTO, Contract, Decoded, candidates, request_url
from .events import notify_answered
from .messages import (
    ESTIMATE,
    Message,
    Reply,
    Usage,
    check_messages,
    count_prompt,
    fit,
    tokenizer_counter,
)
from .params import Params
from .retry import Limits
from .settings import Settings, read_settings
from .spans import call_span
from .transport import POOL_SIZE, Transport

log = logging.getLogger("phi3_tools")
T = TypeVar("T")


class Phi3Client:
    """Talks to one Phi-3 endpoint. Safe to use from many threads; keep it for the process's life.

    Args:
        settings: a checked connection; see `phi3_tools.connection.read`.
        pool_size: connections kept open, and calls that `achat` keeps in flight at most.

    Example:
        >>> client = Phi3Client.from_connection({"endpoint": url, "key": key})
        >>> client.chat("Who founded Microsoft?", Params(temperature=0)).text
    """

    def __init__(self, settings: Settings, *, pool_size: int = POOL_SIZE) -> None:
        self.settings = settings
        self._counter = tokenizer_counter(settings.tokenizer) if settings.tokenizer else None
        self.options = candidates(settings.contract, settings.endpoint, settings.template)
        self.found: Contract | None = self.options[0] if len(self.options) == 1 else None
        self.can_stream: bool | None = None  # None until the endpoint has shown it
        self._pool_size = pool_size
        self._transports: dict[str, Transport] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_connection(cls, connection: Any = None, **overrides: Any) -> Phi3Client:
        """A client for a CustomConnection, a mapping of its fields, or the environment (None).

        Args:
            connection: see `phi3_tools.connection.read`.
            overrides: fields of `Settings` that win over the connection's.

        Raises:
            ConfigError: naming the field that is missing or wrong, and the fix.
        """
        return cls(replace(read_settings(connection), **overrides))

    @property
    def contract(self) -> str:
        """The contract that is spoken, or `auto` while that is not yet known."""
        return self.found.name if self.found else AUTO

    # -- asking ------------------------------------------------------------------------------------

    def chat(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> Reply:
        """One whole answer.

        Args:
            messages: a question, or messages with `role` and `content`.
            params: how to generate.
            context_window: tokens that prompt and answer share; older turns are left out to fit.
                None sends everything.
            limits: timeouts and attempts of this call.

        Raises:
            Phi3Error: the class that names the cause.
        """
        said = self._prepare(messages, params, context_window)
        with call_span(self.settings.endpoint, self.settings.model, said, params) as span:
            call = Call(self, said, params, limits or self.settings.limits)
            reply = call.speak(stream=False, finish=call.whole)
            span.reply(reply)
            notify_answered(reply)
            return reply

    def stream(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params = Params(),
        *,
        context_window: int | None = None,
        limits: Limits | None = None,
    ) -> Stream:
        """The answer as it is generated; one piece where the endpoint does not stream.

        Takes and raises what `chat` does. The request is sent when the first piece is asked for.
        Leaving the loop early closes the connection, so that the endpoint can stop generating. The
        total deadline counts the time that the reader takes, too.
        """
        said = self._prepare(messages, params, context_window)
        return Stream(self, said, params, limits or self.settings.limits)

    async def achat(
        self, messages: str | Iterable[Mapping[str, Any]], *args: Any, **kw: Any
    ) -> Reply:
        """`chat` without blocking the event loop; the same code on a thread of this client's own. A
        cancelled one runs on there until its answer or its deadline comes."""
        return await self._in_thread(lambda: self.chat(messages, *args, **kw))

    async def astream(
        self, messages: str | Iterable[Mapping[str, Any]], *args: Any, **kw: Any
    ) -> AsyncIterator[str]:
        """`stream` without blocking the event loop."""
        stream = self.stream(messages, *args, **kw)
        try:
            while (piece := await self._in_thread(lambda: next(stream, None))) is not None:
                yield piece
        finally:
            await self._in_thread(stream.close)

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            executor, self._executor = self._executor, None
            transports, self._transports = self._transports, {}
        for transport in transports.values():
            transport.close()
        if executor:
            executor.shutdown(wait=False)

    def __enter__(self) -> Phi3Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- for a call ------------------------------------------------------------------------------------

    def _prepare(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        params: Params,
        context_window: int | None,
    ) -> list[Message]:
        given = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        said = check_messages(given)
        if context_window is None:
            return said
        return fit(
            said,
            context_window=context_window,
            max_new_tokens=params.max_new_tokens or 0,
            counter=self._counter or ESTIMATE,
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # asyncio's own pool has cores + 4 threads, far fewer than an endpoint takes requests.
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._pool_size, "phi3")
            executor = self._executor
        # The context carries the caller's span, of which this call's is a child.
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(executor, run, work)

    def transport(self, contract: Contract) -> Transport:
        url = request_url(self.settings.endpoint, contract)
        with self._lock:
            if url not in self._transports:
                self._transports[url] = Transport(url, pool_size=self._pool_size)
            return self._transports[url]

    def remember(self, contract: Contract) -> None:
        if self.found is not contract:
            self.found = contract
            log.info("%s speaks the %s contract", self.settings.endpoint, contract.name)

    def usage(self, decoded: Decoded, messages: list[Message]) -> Usage | None:
        if decoded.usage or self._counter is None:
            return decoded.usage
        count = self._counter.most
        return Usage(count_prompt(messages, count), count(decoded.text), counted=True)
