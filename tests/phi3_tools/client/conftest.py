"""Fixtures of the transport's tests: a function that posts, and an HTTPS server with its authority."""

from __future__ import annotations

import ssl

import pytest
import trustme

from phi3_tools import Limits
from phi3_tools.client.retry import Deadline
from phi3_tools.client.transport import Transport

HANG_S = 30
HEADERS = {"Authorization": "Bearer k3y", "Content-Type": "application/json"}


@pytest.fixture
def post():
    """Return a function that posts a body and reads the answer; its transports are closed at the end."""
    transports = {}

    def post(url, body=b"{}", limits=Limits(), deadline_s=HANG_S):
        if url not in transports:
            transports[url] = Transport(url)
        return transports[url].post(body, HEADERS, limits, Deadline(deadline_s)).read()

    yield post
    for transport in transports.values():
        transport.close()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority, new_server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return new_server(context)


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
