"""One call to an endpoint: its deadline, its attempts, and the contracts that it tries."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import (
    BadAnswerError,
    BadRequestError,
    ConfigError,
    Phi3Error,
    RateLimitedError,
    ScoringFailedError,
)
from .contracts import Contract, Decoded, decode
from .events import notify_failed, notify_throttled
from .groups import join_group
from .messages import Message, Reply, break_template_tokens
from .params import Params
from .redaction import redactor
from .retry import Deadline, Limits, next_wait_s
from .session import Session
from .transport import Response
from .wire_json import parse_json

log = logging.getLogger("phi3_tools")
T = TypeVar("T")

# While the endpoint's contract is not known, a failure of the model may only mean that the request was
# in the wrong contract: send it twice, then try the next contract.
PROBE_ATTEMPTS = 2
# Errors that may mean that the endpoint speaks another contract than the one that was tried.
MISFITS = (BadRequestError, ScoringFailedError, BadAnswerError)
EXCERPT = 80  # characters of an answer that is not JSON in the error
FIELD_LIMIT = 256  # characters of a model's name, a finish reason and a request id
EXCERPT_BYTES = 4096  # bytes of it that are searched for the key before the excerpt is made


class Call:
    """One call: its deadline, its attempts, the contracts that it tries.

    Args:
        session: state of the endpoint; the call updates what it learns.
        messages: the chat to send.
        params: generation parameters.
        limits: timeouts and attempts.
        deadline: the time limit of the call; by default it begins now.
    """

    def __init__(
        self,
        session: Session,
        messages: list[Message],
        params: Params,
        limits: Limits,
        deadline: Deadline | None = None,
    ) -> None:
        self.session = session
        self.messages = messages
        self.params = params
        self.limits = limits
        self.deadline = deadline or Deadline(limits.deadline_s)
        join_group(self.deadline)
        self.attempts = 0
        self._secrets: set[str] = set()  # the keys and tokens that were sent
        self._answered_in: Contract | None = None  # contract of an answer to another one's request

    def send(self, *, stream: bool, finish: Callable[[Contract, Response], T]) -> T:
        """Send the request in the known contract, or in each candidate until one fits.

        Args:
            stream: whether to ask for server-sent events where the contract has them.
            finish: makes the result from a response; its errors count as the attempt's.
        """
        try:
            return self._send(stream, finish)
        except Phi3Error as error:
            notify_failed(error)
            raise

    def _send(self, stream: bool, finish: Callable[[Contract, Response], T]) -> T:
        known = self.session.detected_contract
        contracts = [known] if known else self.session.contracts
        misfits: list[Phi3Error] = []
        for contract in contracts:
            try:
                result = self._try(contract, stream, finish, probing=len(contracts) > 1)
            except MISFITS as error:
                misfits.append(error)
                continue
            likeliest = contracts[0]
            if contract in (likeliest, self._answered_in) or self._is_refused(likeliest):
                self.session.remember(contract)
            return result
        raise misfits[0]  # the error of the likeliest contract

    def _is_refused(self, contract: Contract) -> bool:
        """Return whether the endpoint refuses this contract once more; otherwise it failed by chance."""
        try:
            self.read_reply(contract, self._post(contract, False))
        except MISFITS:
            return True
        except Phi3Error:
            pass  # still not known
        return False

    def _try(
        self,
        contract: Contract,
        stream: bool,
        finish: Callable[[Contract, Response], T],
        probing: bool,
    ) -> T:
        if contract.prompt(self.messages) is not None:
            _warn_of_template_tokens(self.messages)
        streams = stream and contract.streams and self.session.can_stream is not False
        refused_stream = False
        attempt = 0
        while True:
            attempt += 1
            self.attempts += 1
            try:
                result = finish(contract, self._post(contract, streams))
            except Phi3Error as error:
                failure = self.redacted(error)
                failure.attempts = self.attempts
            else:
                if refused_stream:
                    self.session.can_stream = False
                return result
            if isinstance(failure, RateLimitedError):
                notify_throttled(failure)
            if streams and self._may_not_know_stream(contract, failure):
                # Only a refusal is remembered: a failure may pass, and the next call may stream.
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
        """Return whether an older serving image may have failed on the parameter `stream`."""
        unknown = self.session.can_stream is None and contract.name == "chat"
        return unknown and isinstance(failure, (BadRequestError, ScoringFailedError))

    def redacted(self, error: Phi3Error) -> Phi3Error:
        """Remove the key from the error's texts, in case the endpoint repeats it."""
        error.redact(self.redact)
        return error

    def redact(self, text: str) -> str:
        """Return a text of the endpoint without the keys and tokens that were sent to it."""
        for secret in self._secrets:
            text = redactor(secret).redact(text)
        return text

    def _post(self, contract: Contract, streams: bool) -> Response:
        settings = self.session.settings
        payload = contract.encode(self.messages, self.params, streams, settings.model)
        authorization = settings.auth.header()
        self._secrets.add(authorization.removeprefix("Bearer "))
        headers = {
            "Authorization": authorization,
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json" if streams else "application/json",
        }
        if settings.deployment:
            headers["azureml-model-deployment"] = settings.deployment
        transport = self.session.transport(contract)
        return transport.post(_json(payload), headers, self.limits, self.deadline)

    def read_reply(self, contract: Contract, response: Response) -> Reply:
        """Read and decode an answer that is not a stream."""
        body = response.read()
        try:
            payload = parse_json(body)
        except ValueError as error:
            raise BadAnswerError(
                "the endpoint's answer is not JSON",
                request_id=response.request_id,
                detail=self.redact(body[:EXCERPT_BYTES].decode("utf-8", "replace"))[:EXCERPT],
            ) from error
        self._check_contract(contract, payload, response)
        try:
            decoded = decode(payload, prompt=contract.prompt(self.messages))
        except Phi3Error as error:
            error.request_id = error.request_id or response.request_id
            raise
        return self.make_reply(contract, response, decoded, payload)

    def _check_contract(self, contract: Contract, payload: Any, response: Response) -> None:
        """Raise BadAnswerError for an answer in another contract: the endpoint misread the request."""
        candidates = self.session.contracts
        if self.session.detected_contract or len(candidates) == 1 or contract.answers(payload):
            return
        self._answered_in = next((other for other in candidates if other.answers(payload)), None)
        if self._answered_in:
            raise BadAnswerError(
                f"the endpoint answered a {contract.name} request in the "
                f"{self._answered_in.name} contract",
                request_id=response.request_id,
            )

    def make_reply(
        self, contract: Contract, response: Response, decoded: Decoded, raw: Any = None
    ) -> Reply:
        """Return a reply with the facts of this call: attempts, latency, request id."""
        return Reply(
            text=decoded.text,
            usage=self.session.usage(decoded, self.messages),
            finish_reason=self._redacted_field(decoded.finish_reason),
            model=self._redacted_field(decoded.model) or self.session.settings.model,
            contract=contract.name,
            request_id=self._redacted_field(response.request_id),
            latency_s=self.deadline.elapsed,
            attempts=self.attempts,
            raw=raw,
            tool_calls=decoded.tool_calls,
        )

    def _redacted_field(self, value: str | None) -> str | None:
        """Return a short field of an answer, which logs and traces repeat, without the key."""
        return value and self.redact(value[:EXCERPT_BYTES])[:FIELD_LIMIT]


def _warn_of_template_tokens(messages: list[Message]) -> None:
    affected = [m for m in messages if break_template_tokens(m["content"]) != m["content"]]
    if affected:
        log.warning(
            "%d of %d messages contain control tokens of the chat template; each is sent with a blank "
            "after its `<`, so that it stays text",
            len(affected),
            len(messages),
        )


def _json(payload: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(payload, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}") from error
