"""Call a Phi-3 endpoint from Prompt flow, or from anywhere else."""

from .auth import EntraAuth, KeyAuth
from .calls import Stream
from .client import Phi3Client
from .connection import Settings
from .errors import (
    AuthenticationError,
    BadAnswer,
    BadRequest,
    ConfigError,
    ConnectionLost,
    DeploymentNotFound,
    EndpointTimeout,
    EndpointUnreachable,
    ModelNotReady,
    PermissionDenied,
    Phi3Error,
    PromptTooLong,
    RateLimited,
    RequestTooLarge,
    ScoringFailed,
    ServerError,
    StatusError,
    UnexpectedRedirect,
)
from .messages import Message, Reply, Usage, fit, from_chat_history, to_chat_history
from .params import Params
from .retry import Limits

__version__ = "0.1.0"

__all__ = [
    "AuthenticationError",
    "BadAnswer",
    "BadRequest",
    "ConfigError",
    "ConnectionLost",
    "DeploymentNotFound",
    "EndpointTimeout",
    "EndpointUnreachable",
    "EntraAuth",
    "KeyAuth",
    "Limits",
    "Message",
    "ModelNotReady",
    "Params",
    "PermissionDenied",
    "Phi3Client",
    "Phi3Error",
    "PromptTooLong",
    "RateLimited",
    "Reply",
    "RequestTooLarge",
    "ScoringFailed",
    "ServerError",
    "Settings",
    "StatusError",
    "Stream",
    "UnexpectedRedirect",
    "Usage",
    "fit",
    "from_chat_history",
    "to_chat_history",
]
