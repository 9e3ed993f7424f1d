"""A scripted endpoint, `phi3 serve` in front of two connections to it, and a browser."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from chat_browser import REFUSED
from phi3_ops.pf.connections import delete_connection, save_connection
from scripted_endpoint import HANG_S, scripted_endpoint
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


@pytest.fixture
def look(chromium):
    """Opens a page; at the end, no error and no request to another host may have occurred."""
    contexts, problems = [], []

    def open_page(address, noise=REFUSED, unreachable="", **words):
        def local(route):
            host = urlsplit(route.request.url).hostname
            if host in ("127.0.0.1", "localhost"):
                return route.continue_()
            if host != unreachable:
                problems.append(route.request.url)
            route.abort()

        context = chromium.new_context(**words)
        contexts.append(context)
        context.route("**/*", local)
        page = context.new_page()
        page.set_default_timeout(HANG_S * 1000)
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: noise in m.text or problems.append(m.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
