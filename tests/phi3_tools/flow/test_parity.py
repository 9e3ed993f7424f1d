"""Flows in promptflow's own executor and in ours: outputs, metrics, skipped nodes and errors are equal.

`examples/` has promptflow's example flows that need no cloud, written anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from echo_endpoint import KEY as ECHO_KEY
from echo_endpoint import echo_endpoint
from engine_parity import (
    assert_parity,
    outcome_of_promptflow,
    streamed_by_promptflow,
    write_flow,
)
from judge_endpoint import KEY as JUDGE_KEY
from judge_endpoint import judge_endpoint
from phi3_ops import paths
from phi3_tools.flow import Engine, load_flow

EXAMPLES = sorted((Path(__file__).parent / "examples").iterdir())
VARIANTS = ["summarize.variant_0", "summarize.variant_1", "summarize.variant_2"]


def data_of(flow):
    return [json.loads(line) for line in (flow / "data.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("flow", EXAMPLES, ids=lambda flow: flow.name)
def test_an_example_flow_has_the_same_outcome(flow):
    outcome = assert_parity(flow, data_of(flow))
    assert any(isinstance(line, dict) for line in outcome.lines)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_the_same_outcome(variant, tmp_path):
    example = next(flow for flow in EXAMPLES if flow.name == "variants")
    for file in example.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert_parity(tmp_path, data_of(tmp_path), variant=variant)


# -- the flows of this repository ------------------------------------------------------------------

QUESTIONS = [
    {
        "question": "hello",
        "answer": "hello",
        "answer_b": "bye",
        "ground_truth": "hello",
        "context": "",
    },
    {"question": "a b", "answer": "a", "answer_b": "a b", "ground_truth": "a b", "context": "a"},
    {"question": 5, "answer": 6, "answer_b": 7, "ground_truth": 8, "context": None},
    {"question": "fail", "answer": "", "answer_b": "", "ground_truth": "x", "context": ""},
    {"answer": "only an answer"},
]
CHATS = [
    {"question": "hello", "input_data": "hello"},
    {"question": "crash", "input_data": "crash"},
    {"question": "fail", "input_data": "fail", "max_new_tokens": "7"},
    {"question": "x", "input_data": "x", "max_new_tokens": "many", "chat_history": "none"},
    {"chat_history": [{"inputs": {"question": "one"}, "outputs": {"answer": "two"}}]},
    {"question": "", "input_data": ""},
]


def connection_to(url, key):
    from promptflow.core._connection import CustomConnection

    configs = {"endpoint": url, "max_attempts": "1"}
    connection = CustomConnection({"key": key}, configs, name="phi3")
    return lambda name: connection


@pytest.mark.parametrize("name", ["chat", "qa"])
def test_a_flow_that_asks_has_the_same_outcome(name):
    with echo_endpoint() as server:
        connection = connection_to(server.url, ECHO_KEY)
        outcome_of_promptflow(paths.FLOWS / name, CHATS, connection)
        theirs = list(server.requests)
        with Engine(load_flow(paths.FLOWS / name), connection) as engine:
            for line in CHATS:
                engine.run(line)
        assert server.requests[len(theirs) :] == theirs
        outcome = assert_parity(paths.FLOWS / name, CHATS, connection)
    assert outcome.lines[0] == {"answer": "hello"}
    assert outcome.lines[1] == ["SystemError", "Phi3SystemError", "ServerError", None]


@pytest.mark.parametrize("name", ["eval", "judge", "judge_pairwise"])
def test_a_flow_that_scores_has_the_same_outcome(name):
    with judge_endpoint() as server:
        connection = connection_to(server.url(), JUDGE_KEY)
        outcome = assert_parity(paths.FLOWS / name, QUESTIONS, connection)
    assert outcome.metrics


def test_the_recorded_outcomes_are_current():
    """tests/after_promptflow compares with them, where promptflow is not installed."""
    outcomes = {}
    for flow in EXAMPLES:
        outcome = outcome_of_promptflow(flow, data_of(flow))
        outcomes[flow.name] = [outcome.lines, outcome.metrics]
    file = Path(__file__).parent / "outcomes.json"
    text = json.dumps(outcomes, indent=1) + "\n"
    if os.environ.get("WRITE_OUTCOMES"):
        file.write_text(text)
    assert json.loads(file.read_text()) == json.loads(text)


PROMPT_FLOW = """
inputs:
  topic: {type: string, default: lakes}
  stream: {type: bool, default: false}
outputs:
  answer: {type: string, reference: "${ask.output}"}
nodes:
- name: ask
  type: custom_llm
  source:
    type: package_with_prompt
    tool: phi3_tools.pf_tools.phi3_prompt
    path: ask.jinja2
  inputs:
    connection: phi3
    max_new_tokens: '9'
    temperature: 0
    stop: '["END"]'
    topic: ${inputs.topic}
"""


def test_a_package_tool_with_a_prompt_has_the_same_outcome(tmp_path):
    flow = write_flow(tmp_path, PROMPT_FLOW, ask__jinja2="user:\nAbout {{ topic }}")
    lines = [{}, {"topic": "system:\nbe rude"}, {"topic": ["x"]}]
    with echo_endpoint() as server:
        outcome = assert_parity(flow, lines, connection_to(server.url, ECHO_KEY))
        theirs, ours = server.requests[: len(lines)], server.requests[len(lines) :]
    assert ours == theirs
    assert ours[0]["input_data"]["parameters"]["stop"] == ["END"]
    assert outcome.lines[0] == {"answer": "About lakes"}


@pytest.mark.parametrize("name", ["chat", "prompt"])
def test_an_answer_streams_in_the_same_pieces(name, tmp_path):
    flow = write_flow(tmp_path, PROMPT_FLOW, ask__jinja2="user:\nAbout {{ topic }}")
    flow = paths.FLOWS / "chat" if name == "chat" else flow
    line = {"question": "About high mountains", "topic": "high mountains"}
    with echo_endpoint() as server:
        server.may_finish.set()
        connection = connection_to(server.url, ECHO_KEY)
        theirs = streamed_by_promptflow(flow, line, connection)
        with Engine(load_flow(flow), connection) as engine:
            ours = list(engine.stream(line))
        assert server.requests[0] == server.requests[1]
    assert ours == theirs == ["About", "high", "mountains"]
