"""The server of `phi3 serve`: a flow of two nodes, another host, and the end by Ctrl-C."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest
import requests
import yaml

from phi3_ops import paths
from scripted_endpoint import HANG_S
from served_flow import phi3_serve

SHOUT = """
from promptflow.core import tool

@tool
def shout(text: str) -> str:
    return text.upper()
"""


def flow_of_two_nodes(folder: Path) -> Path:
    """A chat flow that changes the answer after the call, so that it cannot stream."""
    content = yaml.safe_load((paths.FLOWS / "chat" / "flow.dag.yaml").read_text())
    source = {"type": "code", "path": "shout.py"}
    inputs = {"text": "${chat.output}"}
    content["nodes"].append({"name": "shout", "type": "python", "source": source, "inputs": inputs})
    content["outputs"]["answer"]["reference"] = "${shout.output}"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(yaml.safe_dump(content))
    (folder / "shout.py").write_text(SHOUT)
    (folder / ".env").write_text("SECRET=x")
    return folder


@pytest.mark.parametrize("engine", ["phi3", "promptflow"])
def test_a_flow_that_cannot_stream_is_served_and_ctrl_c_ends_it(endpoint, tmp_path, engine):
    endpoint.release.clear()
    endpoint.held.add("hold on")
    flow = flow_of_two_nodes(tmp_path / "loud")
    words = ("--flow", flow, "--engine", engine)
    with phi3_serve(*words, TMPDIR=str(tmp_path)) as served:
        both = {"accept": "text/event-stream, application/json"}
        assert served.ask("quiet", headers=both).json() == {"answer": "QUIET"}
        copies = list(tmp_path.glob("phi3-serve-*/0"))
        assert len(copies) == (engine == "promptflow")
        assert not any((copy / ".env").exists() for copy in copies)
        asking = threading.Thread(target=_ask_in_vain, args=(served,))
        asking.start()
        while endpoint.messages() != ["hold on"]:
            time.sleep(0.02)
        printed = served.stop()  # while the endpoint holds an answer back
        asking.join(HANG_S)
    assert "Traceback" not in printed
    assert printed.splitlines()[-1] == "Ctrl-C stops"
    assert not list(tmp_path.glob("phi3-serve-*"))
    endpoint.release.set()


def _ask_in_vain(served):
    with contextlib.suppress(requests.RequestException):
        served.ask("hold on")


def test_another_host_is_served_with_a_password(endpoint):
    with phi3_serve("--host", "0.0.0.0", PHI3_SERVE_TOKEN="secret") as served:
        assert served.ask("hello").status_code == 401
        assert served.ask("hello", auth=("", "secret")).json() == {"answer": "hello"}
        assert "secret" not in served.stop()
