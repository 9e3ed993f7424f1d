"""Requests against real sockets: redirects, certificates, proxies, connections."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress

import pytest

from phi3_tools import (
    AuthenticationError,
    ConfigError,
    EndpointUnreachableError,
    Limits,
    UnexpectedRedirectError,
)
from phi3_tools.client.retry import Deadline
from phi3_tools.client.transport import ERROR_BODY_BYTES, Transport

HANG_S = 30
HEADERS = {"Authorization": "Bearer k3y", "Content-Type": "application/json"}


def test_what_is_sent(server, post):
    server.json([1])
    body = '{"ü": "🙂"}'.encode()
    assert post(f"{server.url}?api-version=1", body) == b"[1]"
    (request,) = server.requests
    assert request.line == "POST /score?api-version=1 HTTP/1.1"
    assert request.body == body
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


# -- redirects, .netrc, cookies --------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(new_server, post, status):
    """The key must not go to another host; redirects to the same host are not followed either."""
    first, other = new_server(), new_server()
    other.json(["stolen"])
    location = other.url.replace("127.0.0.1", "localhost")
    first.give(status, b"moved", {"location": location})
    with pytest.raises(UnexpectedRedirectError) as caught:
        post(first.url)
    assert caught.value.status == status
    assert other.connections == 0
    assert location not in str(caught.value)


def test_an_endless_redirect_body_is_not_read(server, post):
    def endless(x):
        x.head(302, {"location": "/elsewhere"})
        for _ in range(1_000_000):
            x.send(b"x" * ERROR_BODY_BYTES)

    server.play(endless)
    with pytest.raises(UnexpectedRedirectError):
        post(server.url)


def test_a_netrc_entry_does_not_replace_the_key(server, post, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.json([])
    post(server.url)
    assert server.requests[0].headers["authorization"] == "Bearer k3y"


def test_no_cookie_is_kept(server, post):
    server.json([], headers={"set-cookie": "session=1; Path=/"})
    post(server.url)
    post(server.url)
    assert "cookie" not in server.requests[1].headers


# -- certificates and proxies ----------------------------------------------------------------------


def test_certificates_of_the_environment_are_trusted(secure, trusted, post):
    secure.json([1])
    assert post(secure.url) == post(secure.url) == b"[1]"
    assert secure.connections == 1


def test_an_unknown_certificate_is_refused(secure, post):
    secure.json([1])
    with pytest.raises(
        EndpointUnreachableError, match="no secure connection.*certificate verify failed"
    ):
        post(secure.url)
    assert secure.requests == []


def test_another_hosts_certificate_is_refused(authority, trusted, new_server, post):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(context)
    server = new_server(context)
    server.json([1])
    with pytest.raises(EndpointUnreachableError, match="no secure connection"):
        post(server.url)


class NoTLS:
    """Answer a TLS greeting like a plain HTTP server."""

    def wrap_socket(self, connection, server_side):
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        raise OSError


def test_https_to_a_plain_server_is_refused(new_server, post):
    with pytest.raises(
        EndpointUnreachableError, match="no secure connection to the endpoint: .*SSL"
    ):
        post(new_server(NoTLS()).url)


def test_missing_certificates_are_refused(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(
        ConfigError, match="the certificates /nowhere/ca.pem do not exist. Correct REQUESTS_CA"
    ):
        Transport("https://e/score")


def tunnel(exchange):
    """Act as a proxy: after CONNECT, copy bytes in both directions."""
    host, port = exchange.request.path.split(":")
    with socket.create_connection((host, int(port))) as onward:
        exchange.head(200)
        back = threading.Thread(target=pump, args=(onward, exchange.connection))
        back.start()
        pump(exchange.connection, onward)
        back.join(HANG_S)
    exchange.hang_up()


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side closed the connection


def test_a_proxy_of_the_environment_is_used(secure, trusted, new_server, monkeypatch):
    proxy = new_server()
    proxy.play(tunnel)
    secure.json([1])
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    transport = Transport(secure.url)
    assert transport.post(b"{}", HEADERS, Limits(), Deadline(HANG_S)).read() == b"[1]"
    transport.close()
    secure.drop_connections()
    assert [request.line.split()[0] for request in proxy.requests] == ["CONNECT"]
    assert "authorization" not in proxy.requests[0].headers


def test_no_proxy_is_honoured(secure, trusted, new_server, post, monkeypatch):
    proxy = new_server()
    secure.json([1])
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert post(secure.url) == b"[1]"
    assert proxy.connections == 0


def test_a_proxy_that_refuses_is_reported(new_server, post, monkeypatch):
    proxy = new_server()
    proxy.give(407)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:SECRET@127.0.0.1:{proxy.port}")
    with pytest.raises(EndpointUnreachableError, match="407") as caught:
        post("https://e.example.org/score")
    assert "SECRET" not in str(caught.value)


def test_plain_http_goes_through_no_proxy(server, new_server, post, monkeypatch):
    """Plain http is for this machine only, and a proxy could read the key."""
    proxy = new_server()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    server.json([1])
    assert post(server.url) == b"[1]"
    assert proxy.connections == 0


SCHEMES = ["HTTP:", "Http:", "hTTp:", "ht\ttp:", "htt\np:", "\x01http:", " http:", "http\u200b:"]


@pytest.mark.finding(
    8,
    "`HTTP://`, `ht\\ttp:` or `\\x01http:` with a plain-http proxy",
    "a URL is normalised once; the key never goes to the proxy",
)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_spelling_of_plain_http_goes_through_a_proxy(
    server, new_server, connect, monkeypatch, scheme, variable
):
    """The key went to a plain-http proxy if the URL did not begin with exactly `http:`."""
    proxy = new_server()
    proxy.json({"output": "from the proxy"})
    server.json({"output": "Bill"})
    monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    url = server.url.replace("http:", scheme)
    if scheme.lower().strip() == "http:":
        assert connect(url).chat("Who?").text == "Bill"
        assert len(server.requests) == 1
    else:
        with pytest.raises(ConfigError, match="`endpoint` (contains blanks|must be)"):
            connect(url)
    with suppress(ConfigError):
        Transport(url).post(b"{}", HEADERS, Limits(), Deadline(HANG_S)).read()
    assert proxy.connections == 0


# -- connections -----------------------------------------------------------------------------------


def test_a_connection_is_used_again(server, post):
    server.json([1])
    for _ in range(5):
        post(server.url)
    assert server.connections == 1
    assert len(server.requests) == 5


def test_a_connection_is_used_again_after_a_refusal(server, post):
    server.json({"error": "no"}, 401).json([1])
    with pytest.raises(AuthenticationError):
        post(server.url)
    post(server.url)
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_replaced(server, post):
    server.json([1])
    post(server.url)
    server.drop_connections()
    time.sleep(0.05)  # as after a pause: the end of the connection has arrived
    assert post(server.url) == b"[1]"
    assert server.connections == 2


def test_an_unread_body_closes_the_connection(server):
    def answer(x):
        x.head(200, {"content-length": "10"})
        x.send(b"half")
        x.until_client_leaves()

    server.play(answer)
    transport = Transport(server.url)
    response = transport.post(b"{}", HEADERS, Limits(), Deadline(HANG_S))
    assert next(response.chunks()) == b"half"
    response.close()
    assert server.client_left.wait(HANG_S)
    transport.close()


# -- no connection ---------------------------------------------------------------------------------


@pytest.fixture
def closed_port():
    with socket.socket() as sock:
        sock.bind(
            ("127.0.0.1", 0)
        )  # bound but not listening, so that no other program gets the port
        yield sock.getsockname()[1]


def test_a_refused_connection(post, closed_port):
    with pytest.raises(
        EndpointUnreachableError, match="no connection.*refused.*with `phi3 endpoint`"
    ):
        post(f"http://127.0.0.1:{closed_port}/score")


def test_the_callers_own_exception_is_not_in_the_message(post, closed_port):
    try:
        raise RuntimeError("the caller's own")
    except RuntimeError:
        with pytest.raises(EndpointUnreachableError) as caught:
            post(f"http://127.0.0.1:{closed_port}/score")
    assert "caller's own" not in str(caught.value)


def test_an_unknown_name(post, monkeypatch):
    def unknown(*args, **kw):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EndpointUnreachableError, match="Name or service not known"):
        post("https://no-such-endpoint.example.org/score")


def test_a_connect_timeout(post):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(4):  # until the queue is full and the next connection has to wait
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(full.getsockname())
            with pytest.raises(EndpointUnreachableError, match="could not be reached in time"):
                post(
                    f"http://127.0.0.1:{full.getsockname()[1]}/score",
                    limits=Limits(connect_timeout_s=0.2),
                )
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize(
    "url", ["https://*bad*/score", "https://.example.org/score", "https://\u3002"]
)
def test_an_invalid_url(url):
    with pytest.raises(ConfigError, match="`endpoint` is not a valid URL"):
        Transport(url)


def test_a_host_name_that_is_too_long(post):
    with pytest.raises(ConfigError, match="`endpoint` is not a valid URL"):
        post(f"https://{'a' * 64}.example.org/score")
