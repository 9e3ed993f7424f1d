"""Connections, batches and serving in an environment without Prompt flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from echo_endpoint import KEY, echo_endpoint
from phi3_ops.cli import main
from phi3_tools import Phi3Client

QUESTIONS = ("one two", "fail", "three")
LIMIT_S = 60


@pytest.fixture
def connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A connection in the package's own store, made with `phi3 connect`."""
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "phi3"))
    monkeypatch.setenv("PHI3_KEY", KEY)
    with echo_endpoint() as echo:
        echo.may_finish.set()
        assert main(["connect", "--endpoint", echo.url]) == 0
        monkeypatch.delenv("PHI3_KEY")
        yield echo.url
        assert main(["connections", "--delete", "phi3"]) == 0


def test_the_client_and_the_list_know_the_connection(connected, capsys):
    with Phi3Client.from_connection("phi3") as client:
        assert client.chat("Hello").text == "Hello"
    assert main(["connections"]) == 0
    output = capsys.readouterr().out
    assert connected.removeprefix("http://") in output and KEY not in output
    assert main(["connect", "--import-promptflow"]) == 1
    assert "Prompt flow is not installed" in capsys.readouterr().err


def test_a_batch_is_run_scored_resumed_listed_and_deleted(connected, tmp_path, capsys):
    data = tmp_path / "questions.jsonl"
    rows = [{"question": text, "ground_truth": text} for text in QUESTIONS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["run", "--flow", "qa", "--data", str(data), "--name", "asked", "--evaluate"]
    words += ["--column-mapping", "input_data=${data.question}", "--max-failures", "1"]
    assert main(words) == 0
    assert "exact_match" in capsys.readouterr().out
    assert main(["run", "--resume", "asked", "--max-failures", "1"]) == 0
    assert main(["runs", "--show", "asked"]) == 0
    assert "2 answered, 1 failed" in capsys.readouterr().out
    assert main(["run", "--engine", "promptflow", *words[1:]]) == 1
    assert "needs Prompt flow, which is not installed" in capsys.readouterr().err
    assert main(["runs", "--delete", "asked", "--yes"]) == 0


SWEEP = """
name: trial
flow: qa
data: questions.jsonl
columns: {input_data: "${data.question}"}
prompts: {plain: , polite: {inputs: {answer.system_prompt: Please answer.}}}
connections: [phi3]
metrics: [exact_match]
"""


def test_a_sweep_runs_once(connected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": text, "ground_truth": text} for text in QUESTIONS]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert main(["sweep", "sweep.yaml", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [cell["answered"] for cell in document["cells"]] == [2, 2]
    assert document["decision"]["winner"] is None
    assert main(["sweep", "sweep.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_a_flow_is_served_with_its_page(connected):
    command = [sys.executable, "-m", "phi3_ops", "serve", "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().split(" at ")[1].split()[0]
            body = {"question": "one two", "chat_history": []}
            answer = requests.post(f"{url}score", json=body, timeout=LIMIT_S)
            assert answer.json() == {"answer": "one two"}
            accept = {"accept": "text/event-stream"}
            stream = requests.post(f"{url}score", json=body, headers=accept, timeout=LIMIT_S)
            assert stream.text.startswith('data: {"answer": ')
            assert stream.headers["content-type"].startswith("text/event-stream")
            for path in ("", "health", "swagger.json", "page.json"):
                assert requests.get(url + path, timeout=LIMIT_S).ok
        finally:
            server.terminate()
            server.wait(LIMIT_S)
