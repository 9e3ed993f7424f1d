"""A model that writes or judges questions and answers: a connection with a journal and a budget."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from phi3_tools import BadRequestError, Message, Params, Phi3Client, Phi3Error, Reply
from phi3_tools.client import KeyAuth, redactor

from ..hashing import parts_sha256
from .journal import Journal, JournalEntry

# "Chat completions" (OpenAI): reasoning models take `max_completion_tokens` instead of `max_tokens`, and
# only their default temperature. Their refusals name one of the two.
_NEWER_TOKENS = "max_completion_tokens"
_NAMED_BY_REFUSALS = (_NEWER_TOKENS, "temperature")
MIN_CALLS = 2  # for an answer by a schema: the second call if the first answer does not fit


class BudgetReachedError(Exception):
    """The maximum number of calls is reached; nothing was asked."""


class Budget:
    """The number of calls that may still be made. It is safe to use from threads.

    Args:
        calls: maximum number of calls; None for no maximum.

    Attributes:
        used: number of calls so far, and of those that are reserved.
    """

    def __init__(self, calls: int | None = None) -> None:
        self.used = 0
        self._most = calls
        self._reservations = 0
        self._changed = threading.Condition()

    def reserve(self, calls: int) -> None:
        """Count calls before they are made; wait if other reservations may give some back.

        Raises:
            BudgetReachedError: so many calls are not left.
        """
        with self._changed:
            while self._most is not None and self.used + calls > self._most:
                if not self._reservations:
                    raise BudgetReachedError
                self._changed.wait()
            self.used += calls
            self._reservations += 1

    def end_reservation(self, unused: int) -> None:
        """End a reservation, and take back the calls that were not needed.

        Args:
            unused: number of these calls; below 0 if retries took more calls than were reserved.
        """
        with self._changed:
            self.used -= unused
            self._reservations -= 1
            self._changed.notify_all()


class AsksModel(Protocol):
    """The part of `Phi3Client` that a teacher needs."""

    def chat(self, messages: Any, params: Params = ..., /) -> Reply: ...


class Teacher:
    """Asks a model; what the journal has is not asked again. It is safe to use from threads.

    Args:
        client: the client of the connection.
        name: name of the connection. Another connection is asked anew.
        journal: the journal.
        budget: the number of calls that may be made.
        redact: function that returns a text without the connection's key.
        endpoint: what the connection leads to, such as URL, model and deployment. If it changes,
            everything is asked anew.
    """

    def __init__(
        self,
        client: AsksModel,
        name: str,
        journal: Journal,
        budget: Budget,
        redact: Callable[[str], str] = str,
        endpoint: Sequence[str | None] = (),
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._client, self._journal, self._budget, self._redact = client, journal, budget, redact
        self._has_newer_parameters = False

    def __call__(self, messages: Sequence[Message], params: Params) -> Reply:
        """Return the answer to a chat. An answer by a schema is its JSON, as `Reply.text`.

        Raises:
            BudgetReachedError: no call is left.
            Phi3Error: the endpoint failed, or its answer does not fit the schema.
            OpsError: the journal cannot be written.
        """
        key = _request_key(self.name, self._endpoint, messages, params)
        if entry := self._journal.get(key):
            return Reply(entry.text)
        reserved = MIN_CALLS if params.response_format is not None else 1
        self._budget.reserve(reserved)
        used = 1
        try:
            reply = self._ask(list(messages), params)
            used = _calls_of(reply)
        except Phi3Error as error:
            answer = getattr(error, "reply", None)
            used = _calls_of(answer) if isinstance(answer, Reply) else error.attempts
            raise
        finally:
            self._budget.end_reservation(reserved - used)
        text = reply.text
        if params.response_format is not None:
            text = json.dumps(reply.parsed, ensure_ascii=False)
        usage = reply.usage
        entry = JournalEntry(
            key,
            self._redact(text),
            used,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )
        self._journal.add(entry)
        return replace(reply, text=entry.text)

    def _ask(self, messages: list[Message], params: Params) -> Reply:
        if self._has_newer_parameters:
            return self._client.chat(messages, _with_newer_parameters(params))
        try:
            return self._client.chat(messages, params)
        except BadRequestError as error:
            if not any(name in str(error) for name in _NAMED_BY_REFUSALS):
                raise
            reply = self._client.chat(messages, _with_newer_parameters(params))
            self._has_newer_parameters = True
            return replace(reply, attempts=reply.attempts + error.attempts)


def open_teacher(name: str, journal: Journal, budget: Budget) -> tuple[Teacher, Phi3Client]:
    """Return the teacher of a connection, and its client, which the caller closes.

    Raises:
        ConfigError: the connection does not exist, or a field is wrong.
    """
    client = Phi3Client.from_connection(name)
    settings = client.settings
    redact: Callable[[str], str] = str
    if isinstance(settings.auth, KeyAuth):
        redact = redactor(settings.auth.header().removeprefix("Bearer ")).redact
    endpoint = (settings.endpoint, settings.model, settings.deployment)
    return Teacher(client, name, journal, budget, redact, endpoint), client


def _calls_of(reply: Reply) -> int:
    """Return the number of requests that an answer took, with its repair and all retries."""
    return max(reply.attempts, 1 + reply.repairs)


def _with_newer_parameters(params: Params) -> Params:
    renamed = {"max_tokens": None, _NEWER_TOKENS: params.max_new_tokens}
    return replace(params, temperature=None, extra={**params.extra, **renamed})


def _request_key(
    name: str, endpoint: Sequence[str | None], messages: Sequence[Message], params: Params
) -> str:
    """Return the hash of a request: equal requests to one endpoint have equal answers."""
    content = {"endpoint": endpoint, "messages": list(messages), "params": asdict(params)}
    text = json.dumps(content, sort_keys=True, default=str)
    return parts_sha256([name.encode(), text.encode()])
