"""What can go wrong between a flow and its endpoint: one class per cause.

    Phi3Error
    ├── ConfigError             a connection field or an argument is missing or wrong
    ├── PromptTooLong           one question alone does not fit the model's context window
    ├── EndpointUnreachable     no connection: name unknown, refused, no answer in time, TLS
    ├── EndpointTimeout         read or total time limit passed, or the endpoint's own (408)
    ├── ConnectionLost          the connection broke before the whole answer was here
    ├── BadAnswer               an answer of success that cannot be read (not JSON, unknown, too large)
    ├── ScoringFailed           the model's own code failed (424 around 5xx, 200 without an answer)
    └── StatusError             the endpoint refused
        ├── BadRequest          400, 422, or 424 around them: the payload
        ├── AuthenticationError 401: the key or token
        ├── PermissionDenied    403: the role, or the network
        ├── DeploymentNotFound  404: no traffic, no such deployment, retired
        ├── RequestTooLarge     413
        ├── RateLimited         429, or 424 around it
        ├── ModelNotReady       424: the container is starting or too few instances are up
        ├── UnexpectedRedirect  3xx: never followed, since it would carry the key along
        └── ServerError         500, 502, 503, 504 and whatever else

Each carries what is known: `status`, `request_id`, `detail` (the endpoint's own words) and `hint`
(what to do). `user_fault` says whose move it is: the caller's (true) or the endpoint's (false);
prompt flow's serving answers 4xx to the first kind and 5xx to the second.
"""

from __future__ import annotations

DETAIL_LIMIT = 500  # characters of an endpoint's own words that an error repeats


class Phi3Error(Exception):
    """Base of every error this package raises.

    Args:
        message: what went wrong, in one line.
        status: the HTTP status that told, if one did; for a 424 the status inside it.
        request_id: the endpoint's `x-ms-request-id`, to quote to support.
        detail: the endpoint's own words, shortened to `DETAIL_LIMIT` characters.
        hint: what to do; the class's own hint when left out.
        retry_after: seconds that the endpoint asked to wait, if it did.
    """

    user_fault = False
    hint = ""

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
        self.detail = _shown(detail) if detail else None
        self.hint = self.hint if hint is None else hint
        self.retry_after = retry_after
        super().__init__(message)

    @property
    def what(self) -> str:
        """The class, the message and the endpoint's own words, without advice."""
        words = f": {self.detail.rstrip('.')}" if self.detail else ""
        return f"{type(self).__name__}: {self.message}{words}"

    @property
    def fix(self) -> str:
        """What to do; the same as `hint`."""
        return self.hint

    def __str__(self) -> str:
        said = f": {self.detail.rstrip('.')}" if self.detail else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        advice = f" {self.hint}" if self.hint else ""
        return f"{self.message}{said}{request}.{advice}"

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready data, for batch rows that must not be lost."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "status": self.status,
            "request_id": self.request_id,
            "detail": self.detail,
            "hint": self.hint,
        }


def _shown(detail: str) -> str:
    """Foreign words on one line, shortened, and printable whatever code points they hold."""
    return " ".join(detail.split())[:DETAIL_LIMIT].encode("utf-8", "replace").decode()


class ConfigError(Phi3Error):
    user_fault = True


class PromptTooLong(Phi3Error):
    user_fault = True
    hint = "Shorten the question, or use a model with a longer context window."


class EndpointUnreachable(Phi3Error):
    hint = "Check the connection's `endpoint`, and that the endpoint is running."


class EndpointTimeout(Phi3Error):
    hint = "Ask for fewer tokens, raise the time limit, or give the deployment more instances."


class ConnectionLost(Phi3Error):
    hint = "The endpoint may be restarting; try again."


class BadAnswer(Phi3Error):
    hint = "Check that the connection's `endpoint` is the scoring URL and its `contract` is right."


class ScoringFailed(Phi3Error):
    hint = "See the deployment's container logs."


class StatusError(Phi3Error):
    """The endpoint answered with a status that is not success."""


class BadRequest(StatusError):
    user_fault = True
    hint = "Check the generation parameters and the connection's `contract`."


class AuthenticationError(StatusError):
    user_fault = True
    hint = "Put the endpoint's current key into the connection's `key`, or sign in again."


class PermissionDenied(StatusError):
    user_fault = True
    hint = "The identity needs `onlineEndpoints/score/action`, and the network must allow the call."


class DeploymentNotFound(StatusError):
    user_fault = True
    hint = "Give a deployment traffic, or correct the connection's `endpoint` and `deployment`."


class RequestTooLarge(StatusError):
    user_fault = True
    hint = "Send less text."


class RateLimited(StatusError):
    hint = "Send fewer requests at once, or give the deployment more instances."


class ModelNotReady(StatusError):
    hint = "Wait until the deployment is up."


class UnexpectedRedirect(StatusError):
    user_fault = True
    hint = "Put the final scoring URL into the connection's `endpoint`."


class ServerError(StatusError):
    hint = "Try again; when it stays, see the endpoint's health in the studio."
