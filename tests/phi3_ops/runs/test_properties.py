"""A run remembers its flow and the endpoints that it called, without secrets."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY
from phi3_ops import cli, paths
from phi3_ops.flows.lock import flow_states
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.stored_runs import find_stored_run
from phi3_ops.runs.batch import run_flow
from phi3_ops.runs.properties import (
    CONNECTIONS_PROPERTY,
    DATA_HASH_PROPERTY,
    ENDPOINTS_PROPERTY,
    FLOW_HASH_PROPERTY,
    FLOW_VERSION_PROPERTY,
    PROCESS_PROPERTY,
    SYSTEM_METRICS_PROPERTY,
    ConnectionFacts,
    RunProperties,
    url_without_secrets,
)

FULL = RunProperties(
    flow_version="1.0.0",
    flow_sha256="0123456789abcdef",
    endpoints={"answer": ConnectionFacts("phi3", "host/score", "chat", "phi", "blue")},
    connections={"answer": {"connection": "phi3"}},
    data_sha256="abc",
    process="12 34",
    token_counts={"prompt_tokens": 1000, "completion_tokens": 234, "total_tokens": 1234},
)


def test_a_run_remembers_its_flow_and_its_endpoints(server, ask, write_questions):
    secret = "key-in-the-url"
    fields = {"endpoint": f"{server.url}?code={secret}", "model": "phi", "deployment": "blue"}
    save_connection("other", fields, KEY)
    try:
        done = ask(paths.FLOWS / "qa", write_questions("right"), "other")
    finally:
        delete_connection("other")
    properties = find_stored_run(done.name).properties
    (state,) = [state for state in flow_states() if state.name == "qa"]
    assert properties[FLOW_VERSION_PROPERTY] == state.version
    assert properties[FLOW_HASH_PROPERTY] == state.sha256
    assert json.loads(properties[CONNECTIONS_PROPERTY]) == {"answer": {"connection": "other"}}
    assert json.loads(properties[ENDPOINTS_PROPERTY]) == {
        "answer": {
            "connection": "other",
            "endpoint": server.url.removeprefix("http://"),
            "contract": "auto",
            "model": "phi",
            "deployment": "blue",
        }
    }
    assert KEY not in str(properties) and secret not in str(properties)


def test_no_run_fails_because_of_a_value_that_cannot_be_read(copy_of_qa, tmp_path):
    flow = copy_of_qa(tmp_path / "qa", "1.0")  # not a semantic version, and no such connection
    properties = RunProperties.of_flow(flow)
    assert properties.endpoints == {"answer": ConnectionFacts("phi3")}
    assert json.loads(properties.to_properties()[ENDPOINTS_PROPERTY]) == {
        "answer": {"connection": "phi3"}
    }
    (flow / "flow.dag.yaml").write_text("nodes: 3")
    assert list(RunProperties.of_flow(flow).to_properties()) == [FLOW_HASH_PROPERTY]
    assert RunProperties.of_flow(tmp_path / "none") == RunProperties()
    assert RunProperties().to_properties() == {}


def test_properties_are_written_and_read_again():
    stored = FULL.to_properties()
    assert RunProperties.from_properties(stored) == FULL
    texts = {name: value for name, value in stored.items() if name != SYSTEM_METRICS_PROPERTY}
    assert all(isinstance(value, str) for value in texts.values())
    assert stored[SYSTEM_METRICS_PROPERTY] == FULL.token_counts
    assert {DATA_HASH_PROPERTY, PROCESS_PROPERTY} < set(stored)


@pytest.mark.parametrize("text", ["{", "3", '{"answer": {}}', '{"answer": 3}', None])
def test_endpoints_that_are_not_valid_are_left_out(text):
    properties = RunProperties.from_properties({ENDPOINTS_PROPERTY: text})
    assert properties.endpoints is None
    assert properties.facts() == {}


def test_fields_of_a_later_version_are_left_out():
    text = json.dumps({"answer": {"connection": "phi3", "model": "phi", "colour": "red"}})
    properties = RunProperties.from_properties({ENDPOINTS_PROPERTY: text})
    assert properties.endpoints == {"answer": ConnectionFacts("phi3", model="phi")}


def test_people_read_short_names():
    assert FULL.facts() == {
        "flow version": "1.0.0",
        "flow content": "0123456789ab",
        "answer.connection": "phi3",
        "answer.connection.endpoint": "host/score",
        "answer.connection.contract": "chat",
        "answer.connection.model": "phi",
        "answer.connection.deployment": "blue",
        "tokens": "1,234",
    }


def test_the_parts_of_a_url_that_may_be_secret_are_left_out():
    assert url_without_secrets("https://me:word@host:1/score?code=x#y") == "host:1/score"
    facts = ConnectionFacts.of("c", {"endpoint": "http://me@host/score?k=v", "key": "secret"})
    assert facts == ConnectionFacts("c", endpoint="host/score")


def test_compare_prints_first_what_differs_between_the_runs(
    server, ask, write_questions, copy_of_qa, tmp_path, capsys
):
    data = write_questions("right", "wrong")
    fields = {"endpoint": server.url, "contract": "chat", "deployment": "green"}
    save_connection("green", fields, KEY)
    names = []
    try:
        for version, connection in (("1.0.0", "runs"), ("1.1.0", "green")):
            asked = ask(copy_of_qa(tmp_path / version, version), data, connection)
            columns = {"answer": "${run.outputs.answer}", "ground_truth": "${data.ground_truth}"}
            run_flow(paths.FLOWS / "eval", data, columns, title="e", base=asked)
            names.append(asked.name)
    finally:
        delete_connection("green")
    capsys.readouterr()
    assert cli.main(["compare", *names, "--out", str(tmp_path / "out")]) == 0
    output = [line.strip() for line in capsys.readouterr().out.splitlines()]
    differing = output[3 : output.index("Scores")]
    assert "flow version: 1.0.0 | 1.1.0" in differing
    assert "answer.connection: runs | green" in differing
    assert "answer.connection.deployment: – | green" in differing
    assert any(line.startswith("flow content: ") for line in differing)
    assert len(differing) == 4  # and nothing that is the same in both
