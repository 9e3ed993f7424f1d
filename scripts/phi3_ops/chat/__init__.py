"""`phi3 serve`: promptflow's serving app behind a chat page, with access control, feedback and traces.

It may import `azure`, `flows`, `endpoint` and the rooms below them.
"""

from __future__ import annotations

from .app import make_chat_app
from .background import start_page
from .feedback import FeedbackOptions
from .flow_page import is_chat_flow
from .guard import Guard
from .server import serve_app
from .streams import counting_tokens
from .traces import sending_traces

__all__ = [
    "Guard",
    "FeedbackOptions",
    "counting_tokens",
    "is_chat_flow",
    "make_chat_app",
    "sending_traces",
    "serve_app",
    "start_page",
]
