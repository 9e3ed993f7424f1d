"""One call to an endpoint: its deadline, its attempts, its contract, its pieces."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from . import spans, sse
from .contracts import Contract, Decoded, Params, decode, decode_event
from .errors import BadAnswer, BadRequest, ConfigError, ConnectionLost, Phi3Error, ScoringFailed
from .messages import Message, Reply, render
from .retry import Deadline, Limits, next_wait
from .transport import Response

if TYPE_CHECKING:
    from .client import Phi3Client

log = logging.getLogger("phi3_tools")
T = TypeVar("T")

# While it is still open which contract an endpoint speaks, a failure of the model may just mean
# that this was the wrong one: ask twice, then try the next.
PROBE_ATTEMPTS = 2
# What may mean that an endpoint speaks another contract than the one tried.
MISFITS = (BadRequest, ScoringFailed, BadAnswer)


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
            self.client.remember(contract)
            return result
        raise misfits[0]  # the likeliest contract's own complaint

    def _try(
        self,
        contract: Contract,
        stream: bool,
        finish: Callable[[Contract, Response], T],
        probing: bool,
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            self.attempts += 1
            try:
                return finish(contract, self._send(contract, stream))
            except Phi3Error as error:
                wait = next_wait(error, attempt, self.limits, self.deadline)
                if probing and isinstance(error, MISFITS) and attempt >= PROBE_ATTEMPTS:
                    wait = None
                if wait is None:
                    raise
                log.info("attempt %d: %s; again in %.1f s", attempt, type(error).__name__, wait)
                time.sleep(wait)

    def _send(self, contract: Contract, stream: bool) -> Response:
        streams = stream and contract.streams and not self.client.no_stream
        try:
            return self._post(contract, streams)
        except BadRequest:
            if not streams or contract.name != "chat":
                raise
            # An older image does not know `stream`; one that refuses the rest refuses this too.
            response = self._post(contract, False)
            self.client.no_stream = True
            return response

    def _post(self, contract: Contract, streams: bool) -> Response:
        settings = self.client.settings
        payload = contract.encode(self.messages, self.params, streams, settings.model)
        headers = {
            "Authorization": settings.auth.header(),
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
            payload = json.loads(body)
        except ValueError as error:
            raise BadAnswer(
                "the endpoint's answer is not JSON",
                request_id=response.request_id,
                detail=body[:80].decode("utf-8", "replace"),
            ) from error
        self._check_fit(contract, payload, response)
        prompt = render(self.messages) if contract.name == "mlflow" else None
        try:
            decoded = decode(payload, prompt=prompt)
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            raise
        return self.reply(contract, response, decoded, payload)

    def _check_fit(self, contract: Contract, payload: Any, response: Response) -> None:
        """Another contract's answer means that the endpoint misread the request."""
        if self.client.found or len(self.client.options) == 1 or contract.answers(payload):
            return
        others = [other.name for other in self.client.options if other.answers(payload)]
        if others:
            raise BadAnswer(
                f"the endpoint answered a {contract.name} request in the {others[0]} contract",
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


class Stream(Iterator[str]):
    """Pieces of an answer, as they come. After the last one, `reply` holds the whole.

    Use it as an iterator, and as a context manager where the loop may be left early.
    """

    reply: Reply | None = None

    def __init__(
        self, client: Phi3Client, messages: list[Message], params: Params, limits: Limits
    ) -> None:
        self._pieces = self._run(Call(client, messages, params, limits))

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the connection."""
        self._pieces.close()

    def _run(self, call: Call) -> Generator[str, None, None]:
        settings = call.client.settings
        with spans.call(settings.endpoint, settings.model, call.messages, call.params) as span:
            call.deadline = Deadline(call.limits.deadline_s)
            # Attempts end with the first piece: what a person has seen is not taken back.
            first, rest = call.speak(stream=True, finish=lambda c, r: self._begin(call, c, r))
            try:
                if first:
                    yield first
                yield from rest
            finally:
                if isinstance(rest, Generator):
                    rest.close()
            if self.reply:
                span.reply(self.reply)

    def _begin(
        self, call: Call, contract: Contract, response: Response
    ) -> tuple[str, Iterator[str]]:
        if not response.is_stream:
            self.reply = call.whole(contract, response)
            return self.reply.text, iter(())
        pieces = self._pieces_of(call, contract, response)
        return next(pieces, ""), pieces

    def _pieces_of(self, call: Call, contract: Contract, response: Response) -> Iterator[str]:
        total = Decoded("")
        said: list[str] = []
        ended = False
        try:
            for data in sse.events(response.chunks()):
                if data == sse.DONE:
                    ended = True
                    break
                event = decode_event(data)
                total = _merged(total, event)
                if event.text:
                    said.append(event.text)
                    yield event.text
            if not ended and total.finish_reason is None:
                raise ConnectionLost("the stream broke off before its end")
            whole = replace(total, text="".join(said))
            self.reply = call.reply(contract, response, whole)
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            raise
        finally:
            response.close()


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
