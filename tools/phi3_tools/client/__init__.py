"""The client of a Phi-3 endpoint and its parts: settings, authentication, contracts, retries, transport.

It does not import promptflow.
"""

from __future__ import annotations

from .auth import EntraAuth, KeyAuth, token_scope
from .cache import ClientCache
from .client import Phi3Client
from .completion import ChatCompletion
from .contracts import CONTRACTS, request_url
from .events import CallObserver, observe_calls
from .groups import CallGroup
from .history import build_chat, from_chat_history, to_chat_history
from .messages import Message, Reply, Usage, break_template_tokens, fit
from .params import Params
from .prompts import parse_prompt
from .redaction import redactor
from .retry import Deadline, Limits
from .schemas import ProblemsError, check_schema, validate
from .settings import SETTINGS_VARIABLES, Settings, connection_fields, read_settings
from .spans import CAPTURE_VARIABLE, tool_span
from .streams import AsyncStream, Stream
from .tool_calls import ToolCall

__all__ = [
    "AsyncStream",
    "CAPTURE_VARIABLE",
    "CONTRACTS",
    "CallGroup",
    "CallObserver",
    "ChatCompletion",
    "ClientCache",
    "Deadline",
    "EntraAuth",
    "KeyAuth",
    "Limits",
    "Message",
    "Params",
    "Phi3Client",
    "ProblemsError",
    "Reply",
    "SETTINGS_VARIABLES",
    "Settings",
    "Stream",
    "ToolCall",
    "Usage",
    "break_template_tokens",
    "build_chat",
    "check_schema",
    "connection_fields",
    "fit",
    "from_chat_history",
    "observe_calls",
    "parse_prompt",
    "read_settings",
    "redactor",
    "request_url",
    "to_chat_history",
    "token_scope",
    "tool_span",
    "validate",
]
