"""What the tests of the doctor share: a connection, and the command's JSON output."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY
from phi3_ops.pf.connections import delete_connection, save_connection

NAME = "d"


@pytest.fixture
def connected():
    """Writes the connection `d`; it is deleted after the test."""

    def write(url, key=KEY, **fields):
        save_connection(NAME, {"endpoint": url, **fields}, key)

    yield write
    delete_connection(NAME)


@pytest.fixture
def doctor(phi3):
    """Runs `phi3 doctor --json …`. Returns the exit code, and the results by the names of the checks."""

    def run(*words):
        done = phi3("doctor", "--connection", NAME, "--json", *words)
        assert done.err == ""
        document = json.loads(done.out)
        assert done.code == (0 if document["ok"] else 1)
        return done.code, {result["name"]: result for result in document["checks"]}

    return run
