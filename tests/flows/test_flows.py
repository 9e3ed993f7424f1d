"""The flows with the real `pf` command."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
import yaml

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.pf.connections import delete_connection, save_connection
from processes import BIN, pf

FLOWS = sorted(path.parent.name for path in paths.FLOWS.glob("*/flow.dag.yaml"))


@pytest.fixture(scope="module")
def server():
    with echo_endpoint() as server:
        save_connection("phi3", {"endpoint": server.url, "max_attempts": "1"}, KEY)
        yield server
        delete_connection("phi3")


def definition(name):
    return yaml.safe_load((paths.FLOWS / name / "flow.dag.yaml").read_text())


def test_the_flows_exist():
    assert {"chat", "qa", "eval"} <= set(FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_is_valid(name):
    done = pf("flow", "validate", "--source", paths.FLOWS / name)
    assert '"Succeeded"' in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", FLOWS)
def test_flow_has_a_version_samples_and_known_tools(name):
    flow = definition(name)
    assert flow["tags"]["version"].count(".") == 2
    samples = (paths.FLOWS / name / "samples.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) & set(flow["inputs"]) for line in samples)
    from phi3_tools.pf_tools import list_package_tools

    for node in flow["nodes"]:
        tool = node["source"].get("tool")
        if tool:
            assert set(node["inputs"]) <= set(list_package_tools()[tool]["inputs"])


def test_the_chat_flow_can_stream():
    """Prompt flow streams only if the node's output is used by the flow's output alone."""
    flow = definition("chat")
    assert len(flow["nodes"]) == 1
    assert flow["outputs"]["answer"]["reference"] == f"${{{flow['nodes'][0]['name']}.output}}"
    assert set(flow["inputs"]) == {"question", "chat_history"}


def test_the_eval_flow_has_no_defaults():
    """Without a column mapping, a default would win over the data."""
    assert not [name for name, spec in definition("eval")["inputs"].items() if "default" in spec]


@pytest.mark.parametrize(
    ("name", "inputs"), [("chat", ["question=Say ü"]), ("qa", ["input_data=Say ü"])]
)
def test_pf_flow_test_answers(server, name, inputs):
    done = pf("flow", "test", "--flow", paths.FLOWS / name, "--inputs", *inputs)
    assert done.returncode == 0, done.stderr
    assert '"answer": "Say \\u00fc"' in done.stdout or '"answer": "Say ü"' in done.stdout


def test_chat_history_reaches_the_endpoint(server, tmp_path):
    history = [{"inputs": {"question": "one"}, "outputs": {"answer": "two"}}]
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"question": "three", "chat_history": history}) + "\n")
    words = ("--data", data, "--column-mapping", "question=${data.question}")
    done = pf("run", "create", "--flow", paths.FLOWS / "chat", *words,
              "chat_history=${data.chat_history}", env={"PF_BATCH_METHOD": "fork"})  # fmt: skip
    assert '"Completed"' in done.stdout, done.stdout + done.stderr
    said = server.requests[-1]["input_data"]["input_string"]
    assert [m["content"] for m in said] == ["one", "two", "three"]
    assert [m["role"] for m in said] == ["user", "assistant", "user"]


def test_stock_pf_run_and_eval(server, tmp_path):
    """The two commands of the README, on promptflow's own engine with its defaults."""
    data = tmp_path / "data.jsonl"
    rows = [{"question": q, "ground_truth": "same"} for q in ("same", "other")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base, scores = f"flows-base-{os.getpid()}", f"flows-scores-{os.getpid()}"
    answered = pf("run", "create", "--flow", paths.FLOWS / "qa", "--data", data, "--name", base,
                  "--column-mapping", "input_data=${data.question}")  # fmt: skip
    assert '"Completed"' in answered.stdout, answered.stdout + answered.stderr
    scored = pf("run", "create", "--flow", paths.FLOWS / "eval", "--data", data, "--run", base,
                "--name", scores, "--column-mapping", "answer=${run.outputs.answer}",
                "ground_truth=${data.ground_truth}")  # fmt: skip
    assert '"Completed"' in scored.stdout, scored.stdout + scored.stderr
    metrics = json.loads(pf("run", "show-metrics", "--name", scores).stdout)
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 2


@contextlib.contextmanager
def served(flow, *words, **env):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [BIN / "pf", "flow", "serve", "--source", paths.FLOWS / flow, "--port", str(port)]
    command += ["--host", "localhost", "--skip-open-browser", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **env}
    ) as process:
        try:
            yield _wait(f"http://localhost:{port}", process)
        finally:
            process.terminate()
            process.communicate()


def _wait(url, process):
    for _ in range(600):
        assert process.poll() is None, process.stdout.read().decode()
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/health", timeout=5).ok:
                return url
        time.sleep(0.1)
    raise AssertionError("the flow was not served in a minute")


@pytest.mark.parametrize("engine", ["flask", "fastapi"])
def test_pf_flow_serve_answers(server, engine):
    with served("chat", "--engine", engine) as url:
        response = requests.post(f"{url}/score", json={"question": "hello"}, timeout=30)
        assert response.json() == {"answer": "hello"}
        default = requests.post(f"{url}/score", json={}, timeout=30)
        assert default.json() == {"answer": definition("chat")["inputs"]["question"]["default"]}
        described = requests.get(f"{url}/swagger.json", timeout=30).json()
        assert "/score" in described["paths"]
        assert requests.get(url, timeout=30).ok is (engine == "fastapi")
        refused = requests.post(f"{url}/score", json={"question": "fail"}, timeout=30)
        assert refused.status_code == 400
        assert "told to fail" in refused.text
        broken = requests.post(f"{url}/score", json={"question": "crash"}, timeout=30)
        assert broken.status_code == 500
        assert "ServerError" in broken.text and KEY not in broken.text


# The endpoint answers with the question, which this flow's schema must accept.
ORDER = {"customer": "A", "items": [], "deliver_on": "2026-03-09", "express": True}
ECHOED = {"extract": {"text": json.dumps(ORDER)}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FLOWS if name != "judge_llm"])  # needs OpenAI
def test_pf_flow_serve_serves_every_flow(server, name):
    sample = json.loads((paths.FLOWS / name / "samples.jsonl").read_text().splitlines()[0])
    sample |= ECHOED.get(name, {})
    inputs = {key: value for key, value in sample.items() if key in definition(name)["inputs"]}
    with served(name, "--engine", "fastapi") as url:
        response = requests.post(f"{url}/score", json=inputs, timeout=60)
        assert response.status_code == 200, response.text
        assert set(response.json()) == set(definition(name)["outputs"])


def test_the_environment_overrides_a_served_connection(server):
    """An environment file would set the variable; the connection's own endpoint gets no request."""
    with echo_endpoint() as other:
        asked = len(server.requests)
        with served("qa", "--engine", "fastapi", PHI3_ENDPOINT=other.url) as url:
            answer = requests.post(f"{url}/score", json={"input_data": "hello"}, timeout=30)
        assert answer.json() == {"answer": "hello"}
        assert len(other.requests) == 1
        assert len(server.requests) == asked


def test_a_served_answer_streams(server):
    """The first token arrives while the endpoint still holds the last one back."""
    with served("chat", "--engine", "fastapi") as url:
        response = requests.post(
            f"{url}/score",
            json={"question": "one two three"},
            headers={"Accept": "text/event-stream"},
            stream=True,
            timeout=60,
        )
        lines = (line for line in response.iter_lines(chunk_size=1) if line)
        first = next(lines)
        server.may_finish.set()
        pieces = [json.loads(line[5:])["answer"] for line in (first, *lines)]
    assert "".join(pieces) == "onetwothree"
    assert len(pieces) == 3
    assert not server.waited_in_vain


def test_a_refused_stream_has_its_status(server):
    with served("chat", "--engine", "fastapi") as url:
        headers = {"Accept": "text/event-stream"}
        response = requests.post(
            f"{url}/score", json={"question": "fail"}, headers=headers, timeout=60
        )
        assert response.status_code == 400


def test_flows_carry_no_caches_or_secrets_into_git():
    for name in FLOWS:
        ignored = Path(paths.FLOWS / name / ".gitignore").read_text().split()
        assert {".promptflow/", ".env", ".venv/"} <= set(ignored)
