"""A flow, and an exported flow, are really built into images, started as their own user, and asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from echo_endpoint import KEY, echo_endpoint
from images import images  # noqa: F401 - a fixture
from inference_server import free_port
from phi3_ops.flows import FlowDefinition, build_image_context
from phi3_ops.pf import delete_connection, save_connection
from phi3_ops.publish import export_flow
from polling import wait_until

START_S = 120

QUESTION = {"question": "Who founded Microsoft?", "chat_history": []}


def is_healthy(url):
    try:
        return requests.get(f"{url}/health", timeout=5).json()["status"] == "Healthy"
    except (OSError, ValueError):
        return False


def check_answers(images, image, context, env):  # noqa: F811
    """Start an image by its own command, and ask it for an answer and for a stream."""
    port = free_port()
    # On a free port of loopback instead of 8080 of every address.
    command = re.search(r"^CMD \[(.*)\]$", (context / "Dockerfile").read_text(), re.MULTILINE)[1]
    words = command.replace('"', "").replace(",", "").replace("0.0.0.0", "127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with images.running(image, words.replace("8080", str(port)), env):
        wait_until(lambda: is_healthy(url), START_S)
        answer = requests.post(f"{url}/score", json=QUESTION, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"answer": QUESTION["question"]})
        headers = {"accept": "text/event-stream"}
        stream = requests.post(f"{url}/score", json=QUESTION, headers=headers, timeout=60)
        assert stream.text.count("data: ") == len(QUESTION["question"].split())


@pytest.mark.long
@pytest.mark.parametrize("form", ["fastapi", "agent-framework"])
def test_an_exported_chat_answers_from_its_image(form, images, tmp_path):  # noqa: F811
    context = tmp_path / "chat"
    export_flow(Path("chat"), form, context)
    image = images.build(context)
    with echo_endpoint() as endpoint:
        endpoint.may_finish.set()
        variables = (context / ".env.example").read_text()
        (prefix,) = re.findall(r"^(\w+_)ENDPOINT=", variables, re.MULTILINE)
        env = {f"{prefix}ENDPOINT": endpoint.url, f"{prefix}KEY": KEY}
        check_answers(images, image, context, env)
    packages = images.installed(image)
    assert "promptflow-core" not in packages and "phi3-promptflow" in packages
    assert ("agent-framework-core" in packages) is (form == "agent-framework")


@pytest.mark.long
def test_a_flow_answers_from_its_image(images, tmp_path):  # noqa: F811
    """The context of `phi3 flow build`, which `phi3 deploy --flow` uploads as well."""
    context = tmp_path / "chat"
    with echo_endpoint() as endpoint:
        endpoint.may_finish.set()
        save_connection("phi3", {"endpoint": endpoint.url, "contract": "chat"}, KEY)
        try:
            variables = build_image_context(FlowDefinition.read(Path("chat")), context).variables
        finally:
            delete_connection("phi3")
        image = images.build(context)
        check_answers(images, image, context, dict.fromkeys(variables, KEY))
