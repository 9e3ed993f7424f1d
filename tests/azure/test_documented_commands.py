"""The commands on Azure of docs/commands.md, as they are printed and in that order.

The Azure is the fake one. Its jobs end at once, with a model that nobody trained.
"""

from __future__ import annotations

import json
import shlex
import ssl

import pytest

from azure_fixtures import WORKSPACE, plant, succeed
from documented_commands import AZURE, documented, printed
from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.deploy import keys as keys_module
from phi3_ops.flows.content import copy_flow
from phi3_ops.remote_runs import foundry

pytestmark = pytest.mark.slow
# Takes the place of a flow's image.
STAND_IN = """
import json
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    return AMLResponse(json.dumps({"answer": "It answers."}), 200)
"""
ROWS = [{"question": f"Question {n}?", "ground_truth": f"Question {n}?"} for n in range(4)]
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
# Options that shorten waiting, and answer the questions of a person's terminal.
SHORTER = {"deploy": ("--drain", "0"), "provision": ("--yes",), "down": ("--yes",)}


@pytest.fixture
def desk(serving, monkeypatch, tmp_path):
    """A person's folder with data, and a workspace with a connection to an endpoint that echoes."""
    import aiohttp.connector

    from fake_azure import flows as service

    data = tmp_path / ".phi3" / "data"
    data.mkdir(parents=True)
    for name, rows in (("train", [CHAT]), ("test", [CHAT]), ("questions", ROWS)):
        (data / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(paths, "FLOWS", copy_flow(paths.FLOWS, tmp_path / "flows"))
    resources = serving.azure.resources
    service.open_share(
        serving.azure,
        next(value for key, value in resources.items() if key.endswith(f"/workspaces/{WORKSPACE}"))[
            "id"
        ],
    )
    context = ssl.create_default_context(cafile=str(serving.azure.authority))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", context)
    monkeypatch.setattr(foundry, "POLL_S", 0.1)
    monkeypatch.setattr(keys_module, "KEY_POLL_S", 0.0)
    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in" / "score.py").write_text(STAND_IN)
    serving.azure.stand_ins["mlflow"] = tmp_path / "stand-in"  # the fake's name for a built image
    with echo_endpoint() as endpoint:
        serving.echo = endpoint.url
        connect_echo(serving)
        yield serving


def connect_echo(desk):
    """Let the workspace's connection lead to the endpoint that echoes."""
    properties = {
        "category": "CustomKeys",
        "authType": "CustomKeys",
        "metadata": {"endpoint": desk.echo, "contract": "chat"},
        "credentials": {"keys": {"key": KEY}},
    }
    plant(desk.azure, "connections/phi3", {"properties": properties})


def run(desk, text, *more, **names):
    """Run a printed command, and return its output."""
    _, *words = shlex.split(printed(text, **names))
    return succeed(desk.phi3(*words, *more))


@pytest.fixture
def quick_jobs(monkeypatch):
    """Training jobs end at once, with a model."""
    from fake_azure.jobs import Run
    from fake_azure.storage import container_of

    def end(job):
        model = f"azureml/{job.path.name}/model_output/mlflow/MLmodel"
        job.azure.storage.put(container_of(WORKSPACE), model, b"flavors: {}\n")

    monkeypatch.setattr(Run, "_command", end)


@documented("azure")
def test_a_day_on_azure(desk, quick_jobs):
    """Each command is first run with --dry-run, which changes nothing."""
    for row in AZURE:
        if row.command.startswith("phi3 flow promote"):
            continue  # needs two environments: test_flow_promote.py
        if row.command.startswith("phi3 run"):
            connect_echo(desk)
        before = len(desk.azure.writes())
        run(desk, row.command, "--dry-run")
        assert len(desk.azure.writes()) == before, row.command
        run(desk, row.command, *SHORTER.get(row.command.split()[1], ()))
    assert not desk.of("onlineEndpoints")
