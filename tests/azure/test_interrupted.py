"""Ctrl-C during a long operation: one line, exit code 130, and the next run continues."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from processes import BIN

NEVER = 10**6  # polls until an operation ends
POLL = re.compile(r"operations?(status|results)/", re.IGNORECASE)
GO = ("provision", "--create-group", "--yes")


@pytest.fixture
def interrupt(azure):
    """Run a command as a process, and interrupt it when it polls the operation of a request."""

    def run(method, path, *words):
        azure.polls = NEVER
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([BIN / "phi3", *map(str, words)], text=True, **pipes)
        try:
            until = time.monotonic() + 60
            while not _polls(azure, method, path):
                assert process.poll() is None and time.monotonic() < until, process.communicate()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=30), process.returncode
        finally:
            process.kill()
            process.wait()
            azure.polls = 1

    yield run
    azure.polls = 1


def _polls(azure, method, path):
    sent = list(azure.requests)
    starts = [
        index
        for index, request in enumerate(sent)
        if request.method == method and path in request.path
    ]
    return starts and any(POLL.search(request.path) for request in sent[starts[0] :])


def stopped(done):
    (out, err), code = done
    assert (code, err.splitlines()[-1]) == (130, "phi3: interrupted")
    assert "Traceback" not in out + err  # the SDK prints the progress of an upload above it


def test_provision(azure, phi3, interrupt):
    stopped(interrupt("PUT", "/registries/", *GO))
    assert phi3(*GO).code == 0
    assert "nothing to change" in phi3("provision").out


def test_deploy(serving, phi3, interrupt):
    serving.live()
    words = ("deploy", "--job", serving.job("new"), "--drain", 0)
    stopped(interrupt("PUT", "/deployments/d-", *words))
    assert serving.traffic == {"old": 100}
    done = phi3(*words)
    assert done.code == 0, done.err
    assert (serving.traffic, list(serving.deployments.values())) == ({"new": 100}, ["new"])


def test_down(serving, phi3, interrupt):
    serving.live()
    stopped(interrupt("DELETE", "/onlineEndpoints/", "down", "--yes"))
    assert phi3("down", "--yes").code == 0
    assert serving.of("onlineEndpoints") == []
