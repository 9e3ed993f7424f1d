"""Call a Phi-3 endpoint from Prompt flow, or from any Python program."""

from typing import TYPE_CHECKING

from .client import (
    AsyncStream,
    EntraAuth,
    KeyAuth,
    Limits,
    Message,
    Params,
    Phi3Client,
    Reply,
    Settings,
    Stream,
    ToolCall,
    Usage,
    fit,
    from_chat_history,
    to_chat_history,
)
from .errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ConfigError,
    ConnectionLostError,
    DeploymentNotFoundError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    InvalidAnswerError,
    ModelNotReadyError,
    PermissionDeniedError,
    Phi3Error,
    PromptTooLongError,
    RateLimitedError,
    RequestTooLargeError,
    ScoringFailedError,
    ServerError,
    StatusError,
    UnexpectedRedirectError,
)

if not TYPE_CHECKING:
    from .errors import __getattr__  # noqa: F401 - the deprecated names of the errors

__version__ = "1.0.0"

__all__ = [
    "AsyncStream",
    "AuthenticationError",
    "BadAnswerError",
    "BadRequestError",
    "ConfigError",
    "ConnectionLostError",
    "DeploymentNotFoundError",
    "EndpointTimeoutError",
    "EndpointUnreachableError",
    "EntraAuth",
    "InvalidAnswerError",
    "KeyAuth",
    "Limits",
    "Message",
    "ModelNotReadyError",
    "Params",
    "PermissionDeniedError",
    "Phi3Client",
    "Phi3Error",
    "PromptTooLongError",
    "RateLimitedError",
    "Reply",
    "RequestTooLargeError",
    "ScoringFailedError",
    "ServerError",
    "Settings",
    "StatusError",
    "Stream",
    "ToolCall",
    "UnexpectedRedirectError",
    "Usage",
    "fit",
    "from_chat_history",
    "to_chat_history",
]
