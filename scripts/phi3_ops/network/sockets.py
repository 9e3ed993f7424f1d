"""Listening on this machine: bound sockets, their URLs, and which hosts others cannot reach."""

from __future__ import annotations

import ipaddress
import socket

from ..errors import OpsError

EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a bound TCP socket that does not listen yet.

    Args:
        host: address to bind; an address with a colon is an IPv6 one.
        port: port to bind; 0 takes a free one.

    Raises:
        OpsError: the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without an explicit protocol, asyncio leaves Nagle's algorithm on, which delays every answer by
    # 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        what = f"cannot listen on {host}, port {port}: {reason}"
        raise OpsError(what, "Choose another --port (0 takes a free one) or --host.") from error
    return sock


def base_url(host: str, sock: socket.socket) -> str:
    """Return the URL, without a path, at which a client reaches a bound socket."""
    name = "localhost" if host in EVERY_ADDRESS else host
    bracketed = f"[{name}]" if ":" in name else name
    return f"http://{bracketed}:{sock.getsockname()[1]}"
