"""Errors of calls to an endpoint: one class per cause.

    Phi3Error
    ├── ConfigError                 a connection field or an argument is missing or wrong
    ├── PromptTooLongError          the last question alone does not fit the model's context window
    ├── EndpointUnreachableError    no connection: unknown host, refused, connect timeout, TLS
    ├── EndpointTimeoutError        the read or total time limit passed, or the endpoint's own (408)
    ├── ConnectionLostError         the connection broke before the answer was complete
    ├── BadAnswerError              a 200 whose body cannot be read (not JSON, unknown form, too large)
    ├── ScoringFailedError          the model's code failed (424 around a 5xx, or a 200 without an answer)
    ├── InvalidAnswerError          the answer does not fit the schema or the tools of the request
    └── StatusError                 the endpoint answered with an error status
        ├── BadRequestError         400, 422, or 424 around them: the payload
        ├── AuthenticationError     401: the key or token
        ├── PermissionDeniedError   403: the role, or the network
        ├── DeploymentNotFoundError 404: no traffic, unknown deployment, or retired deployment
        ├── RequestTooLargeError    413
        ├── RateLimitedError        429, or 424 around it
        ├── ModelNotReadyError      424: the container is starting, or too few instances are up
        ├── UnexpectedRedirectError 3xx: not followed, because the key would go to another address
        └── ServerError             500, 502, 503, 504 and any other status

Each error has the attributes `status`, `request_id`, `detail` (the endpoint's own message) and `hint`
(what to do). `user_fault` is true where the caller has to fix the cause, and false where the endpoint
failed; prompt flow's serving answers 4xx in the first case and 5xx in the second.

Deprecated: the former names `PromptTooLong`, `EndpointUnreachable`, `EndpointTimeout`, `ConnectionLost`,
`BadAnswer`, `ScoringFailed`, `BadRequest`, `PermissionDenied`, `DeploymentNotFound`, `RequestTooLarge`,
`RateLimited`, `ModelNotReady` and `UnexpectedRedirect` still work in this release, with a
`DeprecationWarning`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DETAIL_LIMIT = 500  # characters of the endpoint's own message that an error repeats
REQUEST_ID_LIMIT = 128  # characters of the endpoint's request id
_MESSAGE_LIMIT = 64 * 1024  # characters of the endpoint's own message that are kept until `redact`


class Phi3Error(Exception):
    """Base of every error this package raises.

    Args:
        message: description of the cause, in one line.
        status: HTTP status, if the endpoint answered with one; for a 424 the status inside it.
        request_id: the endpoint's `x-ms-request-id`, for support requests.
        detail: the endpoint's own message, shortened to `DETAIL_LIMIT` characters.
        hint: what to do; by default the hint of the class.
        retry_after: seconds to wait, if the endpoint named a time.
    """

    user_fault = False
    hint = ""
    attempts = 1  # number of requests that the call sent; the client sets it

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.status = status
        self.request_id = request_id
        self._detail = detail[:_MESSAGE_LIMIT] if detail else ""
        self.hint = self.hint if hint is None else hint
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def detail(self) -> str | None:
        """The endpoint's own message on one line, shortened, or None."""
        return _one_line(self._detail, DETAIL_LIMIT) or None

    def redact(self, replace: Callable[[str], str]) -> None:
        """Remove a secret from every text of the error, and from the errors that caused it.

        The endpoint's own message is shortened after that, because a part of a secret at the limit could
        not be found.

        Args:
            replace: function that returns a text without the secret.
        """
        self._detail = _one_line(replace(self._detail), DETAIL_LIMIT)
        if self.request_id:
            self.request_id = _one_line(replace(self.request_id), REQUEST_ID_LIMIT)
        cause = self.__cause__ or self.__context__
        while cause:
            if replace(str(cause)) != str(cause):
                self.__cause__ = self.__context__ = None
                return
            cause = cause.__cause__ or cause.__context__

    @property
    def what(self) -> str:
        """The class, the message and the endpoint's own message, without advice."""
        return f"{type(self).__name__}: {self.message}{self._detail_suffix()}"

    @property
    def fix(self) -> str:
        """What to do; the same as `hint`."""
        return self.hint

    def __str__(self) -> str:
        request = f" [request {self.request_id}]" if self.request_id else ""
        advice = f" {self.hint}" if self.hint else ""
        return f"{self.message}{self._detail_suffix()}{request}.{advice}"

    def _detail_suffix(self) -> str:
        return f": {self.detail.rstrip('.')}" if self.detail else ""

    def as_dict(self) -> dict[str, object]:
        """Return the error as JSON-ready data, for batch rows that must not be lost."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "status": self.status,
            "request_id": self.request_id,
            "detail": self.detail,
            "hint": self.hint,
        }


def well_formed(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate, so that it can be written as UTF-8.

    Two halves of a surrogate pair become the character that they stand for.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _one_line(text: str, limit: int) -> str:
    """Return the beginning of a text, on one line."""
    return " ".join(well_formed(text).split())[:limit]


class ConfigError(Phi3Error):
    user_fault = True


class PromptTooLongError(Phi3Error):
    user_fault = True
    hint = "Shorten the question, or use a model with a longer context window."


class EndpointUnreachableError(Phi3Error):
    hint = "Check the connection's `endpoint`, and that the endpoint is running."


class EndpointTimeoutError(Phi3Error):
    hint = "Ask for fewer tokens, raise the time limit, or give the deployment more instances."


class ConnectionLostError(Phi3Error):
    hint = "The endpoint may be restarting; try again."


class BadAnswerError(Phi3Error):
    hint = "Check that the connection's `endpoint` is the scoring URL and its `contract` is right."


class ScoringFailedError(Phi3Error):
    hint = "See the deployment's container logs."


class InvalidAnswerError(Phi3Error):
    """The answer does not fit the schema or the tools of the request, also after one repair.

    Attributes:
        text: the model's last answer.
        reply: the reply with this answer, or None.
    """

    hint = "The error's `text` is the answer. Use an endpoint that constrains answers, or a larger model."

    def __init__(
        self, message: str, *, text: str = "", reply: object = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.text = text
        self.reply = reply


class StatusError(Phi3Error):
    """The endpoint answered with an error status."""


class BadRequestError(StatusError):
    user_fault = True
    hint = "Check the generation parameters and the connection's `contract`."


class AuthenticationError(StatusError):
    user_fault = True
    hint = "Put the endpoint's current key into the connection's `key`, or sign in again."


class PermissionDeniedError(StatusError):
    user_fault = True
    hint = "The identity needs `onlineEndpoints/score/action`, and the network must allow the call."


class DeploymentNotFoundError(StatusError):
    user_fault = True
    hint = "Give a deployment traffic, or correct the connection's `endpoint` and `deployment`."


class RequestTooLargeError(StatusError):
    user_fault = True
    hint = "Send less text."


class RateLimitedError(StatusError):
    hint = "Send fewer requests at once, or give the deployment more instances."


class ModelNotReadyError(StatusError):
    hint = "Wait until the deployment is up."


class UnexpectedRedirectError(StatusError):
    user_fault = True
    hint = "Put the final scoring URL into the connection's `endpoint`."


class ServerError(StatusError):
    hint = "Try again; if the error persists, check the endpoint's health in the studio."


_RENAMED = {
    "PromptTooLong",
    "EndpointUnreachable",
    "EndpointTimeout",
    "ConnectionLost",
    "BadAnswer",
    "ScoringFailed",
    "BadRequest",
    "PermissionDenied",
    "DeploymentNotFound",
    "RequestTooLarge",
    "RateLimited",
    "ModelNotReady",
    "UnexpectedRedirect",
}

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> type[Phi3Error]:
        """Return the class that a deprecated name stands for."""
        if name not in _RENAMED:
            raise AttributeError(f"module 'phi3_tools' has no attribute {name!r}")
        message = f"phi3_tools.{name} is deprecated; use {name}Error"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[f"{name}Error"]
