import subprocess

import pytest

from azure_fixtures import azure, kill_after, one_azure, phi3, provisioned, snapshot  # noqa: F401 - fixtures
from phi3_ops.endpoint import background


@pytest.fixture
def started(monkeypatch):
    """The processes that were started in the background, in the order of their starts."""
    processes = []
    popen = subprocess.Popen

    def start(*args, **kw):
        processes.append(popen(*args, **kw))
        return processes[-1]

    monkeypatch.setattr(background.subprocess, "Popen", start)
    yield processes
    for process in processes:
        process.kill()
        process.wait()
