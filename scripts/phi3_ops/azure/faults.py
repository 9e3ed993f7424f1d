"""Azure's errors as one line: codes, message, policy, request id, and what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import OpsError

T = TypeVar("T")

MOST_CHARACTERS = 300  # of a message
# Code -> what the user can do about it.
FIXES_BY_CODE = {
    "MissingSubscriptionRegistration": "Run `phi3 provision --register`.",
    "SubscriptionNotRegistered": "Run `phi3 provision --register`.",
    "RequestDisallowedByPolicy": "Ask the owner of that policy for an exemption or for other settings.",
    "OutOfQuota": "Run `phi3 quota`, and request more cores or choose another size.",
    "QuotaExceeded": "Run `phi3 quota`, and request more cores or choose another size.",
    "PrincipalNotFound": "The directory does not know the new identity yet; try again in a minute.",
}
# Status -> what the user can do about it.
FIXES_BY_STATUS = {
    403: "Ask the subscription's owner for the role that this action needs.",
    409: "A resource of this name exists or is being changed; try again, or choose another name.",
    429: "Azure limits the rate of requests; run the command again later, it continues where it stopped.",
}
# Headers with the id by which Azure's support finds a request.
REQUEST_ID_HEADERS = ("x-ms-request-id", "x-ms-correlation-request-id")


@dataclass(frozen=True)
class Fault:
    """The content of an error document of Azure.

    Attributes:
        codes: code, then its inner codes and those of nested details, without repetitions.
        message: the message's first line, and that of the first nested detail.
        policy: names of the policies that forbid the request, "" without one.
    """

    codes: tuple[str, ...] = ()
    message: str = ""
    policy: str = ""

    @property
    def text(self) -> str:
        """Codes, message and policy."""
        policy = f" (policy: {self.policy})" if self.policy else ""
        return f"{' / '.join(self.codes)}: {self.message}{policy}"


def read_fault(document: Any) -> Fault:
    """Return the content of an error document.

    Azure Resource Manager nests causes in `details`, and Azure ML its codes in `innerError`, which may be
    a field or an entry of `additionalInfo`. Contract: "Common error response for all Azure Resource
    Manager APIs", and recorded answers of Azure ML.

    Args:
        document: JSON of an answer or of an operation; its error is in `error`, or it is the error.
    """
    error = _mapping(document)
    error = _mapping(error.get("error")) or error
    codes, messages = [], []
    for nested in _chain(error):
        codes.append(str(nested.get("code") or ""))
        codes += _inner_codes(nested)
        messages.append(_first_line(nested.get("message")))
    return Fault(
        tuple(dict.fromkeys(code for code in codes if code)),
        "; ".join(dict.fromkeys(message for message in messages if message)),
        ", ".join(dict.fromkeys(name for nested in _chain(error) for name in _policies(nested))),
    )


def _chain(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the error and the first of its details, and so on.

    The message of a detail may be the JSON of another error document.
    """
    while error:
        inner = _inner_document(error.get("message"))
        yield {**error, "message": ""} if inner else error
        details = error.get("details") or [None]
        error = inner or _mapping(details[0])


def _inner_document(message: Any) -> Mapping[str, Any]:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return {}
    try:
        document = _mapping(json.loads(message))
    except ValueError:
        return {}
    return _mapping(document.get("error")) or document


def _inner_codes(error: Mapping[str, Any]) -> Iterator[str]:
    inner = _mapping(error.get("innerError") or error.get("innererror"))
    for entry in _additional_info(error, "InnerError"):
        inner = inner or _mapping(entry.get("value"))
    while inner:
        yield str(inner.get("code") or "")
        inner = _mapping(inner.get("innerError") or inner.get("innererror"))


def _policies(error: Mapping[str, Any]) -> Iterator[str]:
    for entry in _additional_info(error, "PolicyViolation"):
        for field in ("policyAssignmentDisplayName", "policyDefinitionDisplayName"):
            if entry.get(field):
                yield str(entry[field])


def _additional_info(error: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    for entry in error.get("additionalInfo") or []:
        if _mapping(entry).get("type") == kind:
            yield _mapping(entry.get("info"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_line(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[0][:MOST_CHARACTERS] if lines else ""


def find_resource(get: Callable[[], T]) -> T | None:
    """Return the result of `get`, or None if Azure answers that the resource does not exist.

    Every other error passes: a missing permission is not a missing resource.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get()
    except ResourceNotFoundError:
        return None


@contextlib.contextmanager
def named_errors(action: str) -> Iterator[None]:
    """Turn an AzureError into an OpsError of one line: action, codes, message and request id.

    Args:
        action: what the block does, for example "reading the quota of eastus2".

    Raises:
        OpsError: the block raised an AzureError.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError

    try:
        yield
    except ClientAuthenticationError as error:
        what = f"{action}: not signed in ({_own_message(error)})"
        raise OpsError(what, "Run `az login`.") from error
    except AzureError as error:
        raise explained(error, action) from error


def explained(error: Any, action: str) -> OpsError:
    """Return the OpsError for an AzureError.

    Args:
        error: an `azure.core.exceptions.AzureError`.
        action: what was tried.
    """
    fault = fault_of(error)
    status = getattr(error, "status_code", None) or 0
    text = f"{action}: {fault.text}"
    if request_id := _request_id(error):
        text += f" (request {request_id})"
    fixes = [FIXES_BY_CODE[code] for code in fault.codes if code in FIXES_BY_CODE]
    return OpsError(text, fixes[0] if fixes else FIXES_BY_STATUS.get(status, ""))


def fault_of(error: Any) -> Fault:
    """Return the content of an AzureError: that of its answer, or else its own code and message."""
    fault = read_fault(_body(error))
    code = getattr(getattr(error, "error", None), "code", None)
    code = code or getattr(error, "status_code", None) or type(error).__name__
    return Fault(fault.codes or (str(code),), fault.message or _own_message(error), fault.policy)


def has_code(error: Any, *codes: str) -> bool:
    """Return whether one of an AzureError's codes is among these."""
    return bool({*codes} & {*fault_of(error).codes})


def _own_message(error: Any) -> str:
    return _first_line(getattr(error, "message", None) or error) or type(error).__name__


def _body(error: Any) -> Any:
    """Return the JSON of the answer that an error is about, None without one."""
    try:
        return json.loads(error.response.text())
    except Exception:  # no answer, an unread one, or no JSON: the error's own text remains
        return None


def _request_id(error: Any) -> str:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return next((str(headers[name]) for name in REQUEST_ID_HEADERS if headers.get(name)), "")
