"""Listening on this machine: sockets, their URLs, and uvicorn's protocol with bounds for its connections.

This room may import the top-level modules only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .sockets import base_url, bind_socket, is_loopback

if TYPE_CHECKING:
    from .bounded_protocol import BoundedProtocol

__all__ = ["BoundedProtocol", "base_url", "bind_socket", "is_loopback"]


def __getattr__(name: str) -> Any:
    """Import uvicorn only when a server starts."""
    if name == "BoundedProtocol":
        from .bounded_protocol import BoundedProtocol

        return BoundedProtocol
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
