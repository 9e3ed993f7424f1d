"""The flows with the real `pf` command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import requests
import yaml

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import delete_connection, save_connection
from processes import pf
from served_flow import pf_serve

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
    result = pf_client().flows.validate(paths.FLOWS / name)  # that of `pf flow validate`
    assert result.passed, repr(result)


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


@pytest.mark.slow
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
    metrics = pf_client().get_metrics(scores)
    assert metrics["exact_match"] == 0.5
    assert metrics["lines"] == 2


@pytest.fixture(scope="module")
def chat_url(server):
    """`pf flow serve` with the chat flow; its start takes seconds."""
    with pf_serve(paths.FLOWS / "chat", "--engine", "fastapi") as served:
        yield served.url


def test_pf_flow_serve_answers(chat_url):
    assert_answers(chat_url)
    assert requests.get(chat_url, timeout=30).ok


def test_pf_flow_serve_answers_on_flask(server):
    with pf_serve(paths.FLOWS / "chat", "--engine", "flask") as served:
        assert_answers(served.url)
        assert not requests.get(served.url, timeout=30).ok


def assert_answers(url):
    response = requests.post(f"{url}/score", json={"question": "hello"}, timeout=30)
    assert response.json() == {"answer": "hello"}
    default = requests.post(f"{url}/score", json={}, timeout=30)
    assert default.json() == {"answer": definition("chat")["inputs"]["question"]["default"]}
    described = requests.get(f"{url}/swagger.json", timeout=30).json()
    assert "/score" in described["paths"]
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
    with pf_serve(paths.FLOWS / name, "--engine", "fastapi") as served:
        response = requests.post(f"{served.url}/score", json=inputs, timeout=60)
        assert response.status_code == 200, response.text
        assert set(response.json()) == set(definition(name)["outputs"])


def test_the_environment_overrides_a_served_connection(server):
    """An environment file would set the variable; the connection's own endpoint gets no request."""
    with echo_endpoint() as other:
        asked = len(server.requests)
        environment = {"PHI3_ENDPOINT": other.url}
        with pf_serve(paths.FLOWS / "qa", "--engine", "fastapi", **environment) as served:
            answer = requests.post(f"{served.url}/score", json={"input_data": "hello"}, timeout=30)
        assert answer.json() == {"answer": "hello"}
        assert len(other.requests) == 1
        assert len(server.requests) == asked


def test_a_served_answer_streams(server, chat_url):
    """The first token arrives while the endpoint still holds the last one back."""
    response = requests.post(
        f"{chat_url}/score",
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


def test_a_refused_stream_has_its_status(chat_url):
    headers = {"Accept": "text/event-stream"}
    response = requests.post(
        f"{chat_url}/score", json={"question": "fail"}, headers=headers, timeout=60
    )
    assert response.status_code == 400


def test_flows_carry_no_caches_or_secrets_into_git():
    for name in FLOWS:
        ignored = Path(paths.FLOWS / name / ".gitignore").read_text().split()
        assert {".promptflow/", ".env", ".venv/"} <= set(ignored)
