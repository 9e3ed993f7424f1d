"""Sockets that are bound for a server, their URLs, and the hosts that others cannot reach."""

from __future__ import annotations

import socket

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.network.sockets import base_url, bind_socket, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.8.9.10", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", ""])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_a_socket_is_named_as_tcp():
    """Otherwise asyncio leaves Nagle's algorithm on."""
    with bind_socket("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_a_port_in_use_is_an_error_with_advice():
    with bind_socket("127.0.0.1", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(OpsError, match=f"cannot listen on 127.0.0.1, port {port}") as caught:
            bind_socket("127.0.0.1", port)
    assert "--port" in caught.value.fix


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_not_a_port(port):
    with pytest.raises(OpsError, match="cannot listen"):
        bind_socket("127.0.0.1", port)


@pytest.mark.parametrize(
    "host, expected",
    [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "localhost"), ("::", "localhost")],
)
def test_the_url_is_one_that_a_client_can_call(host, expected):
    with bind_socket("127.0.0.1", 0) as sock:
        assert base_url(host, sock) == f"http://{expected}:{sock.getsockname()[1]}"
