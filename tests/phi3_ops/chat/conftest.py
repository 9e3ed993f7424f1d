"""A scripted endpoint, and `phi3 serve` in front of two connections to it."""

from __future__ import annotations

import pytest

from phi3_ops.pf.connections import delete_connection, save_connection
from scripted_endpoint import scripted_endpoint
from served_flow import phi3_serve

CONNECTIONS = ("phi3", "phi3-base")


@pytest.fixture(scope="module")
def endpoint():
    with scripted_endpoint() as endpoint:
        for name in CONNECTIONS:
            save_connection(name, {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        yield endpoint
        for name in CONNECTIONS:
            delete_connection(name)


@pytest.fixture(scope="module", params=["phi3", "promptflow"])
def served(request, endpoint):
    with phi3_serve("--against", "phi3-base", "--engine", request.param) as served:
        yield served
