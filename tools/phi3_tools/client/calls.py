"""One call to an endpoint: its deadline, its attempts, its contract, its pieces."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    BadAnswerError,
    BadRequestError,
    ConfigError,
    ConnectionLostError,
    Phi3Error,
    RateLimitedError,
    ScoringFailedError,
)
from .contracts import Contract, Decoded, decode, decode_event, parse_json
from .events import notify_answered, notify_throttled
from .messages import Message, Reply
from .params import Params
from .retry import Deadline, Limits, next_wait_s
from .spans import call_span
from .sse import DONE, events
from .transport import Response

if TYPE_CHECKING:
    from .client import Phi3Client

log = logging.getLogger("phi3_tools")
T = TypeVar("T")

# While it is still open which contract an endpoint speaks, a failure of the model may just mean
# that this was the wrong one: ask twice, then try the next.
PROBE_ATTEMPTS = 2
# Seconds that a stream's connection has to come to its end once the last event is here; one that does
# not is closed instead of kept.
DRAIN_S = 0.2
# What may mean that an endpoint speaks another contract than the one tried.
MISFITS = (BadRequestError, ScoringFailedError, BadAnswerError)


class Call:
    """One call: its deadline, its attempts, the contracts it tries."""

    def __init__(
        self, client: Phi3Client, messages: list[Message], params: Params, limits: Limits
    ) -> None:
        self.client = client
        self.messages = messages
        self.params = params
        self.limits = limits
        self.deadline = Deadline(limits.deadline_s)
        self.attempts = 0
        self._key = ""
        self._shown: Contract | None = None  # the contract that an unfitting answer has shown

    def speak(self, *, stream: bool, finish: Callable[[Contract, Response], T]) -> T:
        """Send the request, in the contract that is known or in each that may be, until one fits.

        Args:
            stream: whether to ask for server-sent events where the contract has them.
            finish: makes the result of an answer; its errors count as the attempt's.
        """
        known = self.client.found
        options = [known] if known else self.client.options
        misfits: list[Phi3Error] = []
        for contract in options:
            try:
                result = self._try(contract, stream, finish, probing=len(options) > 1)
            except MISFITS as error:
                misfits.append(error)
                continue
            if contract in (options[0], self._shown) or self._refuses(options[0]):
                self.client.remember(contract)
            return result
        raise misfits[0]  # the likeliest contract's own complaint

    def _refuses(self, contract: Contract) -> bool:
        """Whether the endpoint still refuses the likelier contract; else it had only stumbled."""
        try:
            self.whole(contract, self._post(contract, False))
        except MISFITS:
            return True
        except Phi3Error:
            pass  # still open
        return False

    def _try(
        self,
        contract: Contract,
        stream: bool,
        finish: Callable[[Contract, Response], T],
        probing: bool,
    ) -> T:
        streams = stream and contract.streams and self.client.can_stream is not False
        refused_stream = False
        attempt = 0
        while True:
            attempt += 1
            self.attempts += 1
            try:
                result = finish(contract, self._post(contract, streams))
            except Phi3Error as error:
                failure = self.without_key(error)
                if isinstance(failure, RateLimitedError):
                    notify_throttled(failure)
            else:
                if refused_stream:
                    self.client.can_stream = False
                return result
            if streams and self._may_not_know_stream(contract, failure):
                # A failure may pass, so that the next call asks for a stream again; a refusal stays.
                streams, refused_stream = False, isinstance(failure, BadRequestError)
                continue
            wait = next_wait_s(failure, attempt, self.limits, self.deadline)
            if probing and isinstance(failure, MISFITS) and attempt >= PROBE_ATTEMPTS:
                wait = None
            if wait is None:
                raise failure
            log.info("attempt %d: %s; again in %.1f s", attempt, type(failure).__name__, wait)
            self.deadline.sleep(wait)

    def _may_not_know_stream(self, contract: Contract, failure: Phi3Error) -> bool:
        """An older image chokes on `stream`; one that has streamed before has other reasons."""
        unknown = self.client.can_stream is None and contract.name == "chat"
        return unknown and isinstance(failure, (BadRequestError, ScoringFailedError))

    def without_key(self, error: Phi3Error) -> Phi3Error:
        """The error with the key cut out of the endpoint's words, should it repeat them."""
        if self._key and error.detail:
            error.detail = error.detail.replace(self._key, "…")
        return error

    def _post(self, contract: Contract, streams: bool) -> Response:
        settings = self.client.settings
        payload = contract.encode(self.messages, self.params, streams, settings.model)
        authorization = settings.auth.header()
        self._key = authorization.removeprefix("Bearer ")
        headers = {
            "Authorization": authorization,
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json" if streams else "application/json",
        }
        if settings.deployment:
            headers["azureml-model-deployment"] = settings.deployment
        transport = self.client.transport(contract)
        return transport.post(_json(payload), headers, self.limits, self.deadline)

    def whole(self, contract: Contract, response: Response) -> Reply:
        """The reply in a whole answer."""
        body = response.read()
        try:
            payload = parse_json(body)
        except ValueError as error:
            raise BadAnswerError(
                "the endpoint's answer is not JSON",
                request_id=response.request_id,
                detail=body[:80].decode("utf-8", "replace"),
            ) from error
        self._check_fit(contract, payload, response)
        try:
            decoded = decode(payload, prompt=contract.prompt(self.messages))
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            raise
        return self.reply(contract, response, decoded, payload)

    def _check_fit(self, contract: Contract, payload: Any, response: Response) -> None:
        """Another contract's answer means that the endpoint misread the request."""
        if self.client.found or len(self.client.options) == 1 or contract.answers(payload):
            return
        self._shown = next((o for o in self.client.options if o.answers(payload)), None)
        if self._shown:
            raise BadAnswerError(
                f"the endpoint answered a {contract.name} request in the {self._shown.name} contract",
                request_id=response.request_id,
            )

    def reply(
        self, contract: Contract, response: Response, decoded: Decoded, raw: Any = None
    ) -> Reply:
        """A reply with what this call knows of itself."""
        return Reply(
            text=decoded.text,
            usage=self.client.usage(decoded, self.messages),
            finish_reason=decoded.finish_reason,
            model=decoded.model or self.client.settings.model,
            contract=contract.name,
            request_id=response.request_id,
            latency_s=self.deadline.elapsed,
            attempts=self.attempts,
            raw=raw,
        )


class StreamedCall(Call):
    """A call whose answer is handed on as it comes. `result` is there once the last piece is.

    Apart from `Stream`, so that the generator does not refer to whoever holds it: a stream that
    nobody keeps any more is then closed at once.
    """

    result: Reply | None = None

    def pieces(self) -> Generator[str, None, None]:
        settings = self.client.settings
        with call_span(settings.endpoint, settings.model, self.messages, self.params) as span:
            self.deadline = Deadline(self.limits.deadline_s)
            # Attempts end with the first piece: what a person has seen is not taken back.
            first, rest = self.speak(stream=True, finish=self._begin)
            with closing(rest):
                if first:
                    yield first
                yield from rest
            if self.result:
                span.reply(self.result)
                notify_answered(self.result)

    def _begin(
        self, contract: Contract, response: Response
    ) -> tuple[str, Generator[str, None, None]]:
        if not response.is_stream:
            self.result = self.whole(contract, response)
            return "", _one(self.result.text)
        pieces = self._pieces_of(contract, response)
        first = next(pieces, "")
        self.client.can_stream = True
        return first, pieces

    def _pieces_of(self, contract: Contract, response: Response) -> Generator[str, None, None]:
        total = Decoded("")
        said: list[str] = []
        try:
            for data in events(response.chunks()):
                if self.result:
                    continue  # past the end: read on, so that the connection can be kept
                if data == DONE:
                    self.result = self._ended(contract, response, total, said)
                    self.deadline.shorten(DRAIN_S)
                    continue
                event = decode_event(data)
                total = _merged(total, event)
                if event.text:
                    said.append(event.text)
                    yield event.text
            if self.result is None:
                if total.finish_reason is None:
                    raise ConnectionLostError("the stream broke off before its end")
                self.result = self._ended(contract, response, total, said)
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            if self.result is None:
                raise self.without_key(error) from None
        finally:
            response.close()

    def _ended(
        self, contract: Contract, response: Response, total: Decoded, said: list[str]
    ) -> Reply:
        if not said and total.finish_reason is None:
            raise BadAnswerError("the stream ended without an answer")
        return self.reply(contract, response, replace(total, text="".join(said)))


class Stream(Iterator[str]):
    """Pieces of an answer, as they come.

    Use it as an iterator, and as a context manager where the loop may be left early. `close` may be
    called from any thread.
    """

    def __init__(
        self, client: Phi3Client, messages: list[Message], params: Params, limits: Limits
    ) -> None:
        self._call = StreamedCall(client, messages, params, limits)
        self._pieces = self._call.pieces()
        self._lock = threading.Lock()

    @property
    def reply(self) -> Reply | None:
        """The whole answer, once its last piece is here."""
        return self._call.result

    def __next__(self) -> str:
        with self._lock:
            return next(self._pieces)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the connection."""
        if not self._lock.acquire(blocking=False):
            self._call.deadline.cancel()  # another thread waits for a piece
            self._lock.acquire()
        try:
            self._pieces.close()
        finally:
            self._lock.release()


def _one(piece: str) -> Generator[str, None, None]:
    if piece:
        yield piece


def _merged(total: Decoded, event: Decoded) -> Decoded:
    """What the events so far say beside the text."""
    return Decoded(
        text="",
        usage=event.usage or total.usage,
        finish_reason=event.finish_reason or total.finish_reason,
        model=event.model or total.model,
    )


def _json(payload: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(payload, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}") from error
