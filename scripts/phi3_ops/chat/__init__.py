"""`phi3 serve`: Prompt flow's serving app behind a chat page, with access control and traces.

It may import `azure`, `flows`, `endpoint` and the rooms below them.
"""

from __future__ import annotations

from .server import counting_tokens, make_chat_app, serve_app
from .traces import sending_traces

__all__ = [
    "counting_tokens",
    "make_chat_app",
    "sending_traces",
    "serve_app",
]
