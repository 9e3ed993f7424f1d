"""`phi3 run --replay`: each question follows the model's own answers, and a rerun gives the same."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from phi3_ops import paths
from phi3_ops.flows.content import copy_flow
from phi3_ops.runs.batch import load_batch
from phi3_tools import Params, Phi3Client
from processes import phi3
from tiny_endpoint import KEY

pytestmark = pytest.mark.slow

CONVERSATIONS = [
    ["My name is Maria and I live in Lisbon.", "Where do I live?", "What is my name?"],
    ["Name a fruit that is red.", "Name another one.", "Which of the two did you name first?"],
    ["What is the capital of France?", "And of Italy?", "Which of them is further south?"],
    ["Tell me a fact about cats.", "Say it in other words.", "Is this true of dogs as well?"],
    ["Suggest a dish with rice.", "How long does it take?", "What do I need to buy?"],
]
TOKENS = 32


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A copy of flows/chat that answers greedily and briefly."""
    flow = copy_flow(paths.FLOWS / "chat", tmp_path_factory.mktemp("flow") / "chat")
    definition = flow / "flow.dag.yaml"
    content = yaml.safe_load(definition.read_text(encoding="utf-8"))
    content["nodes"][0]["inputs"].update(temperature=0.0, max_new_tokens=TOKENS)
    definition.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return flow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "conversations.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": question} for question in questions]}
        for questions in CONVERSATIONS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def replay(connection, flow, data, tmp_path_factory):
    """A function that replays the conversations; it returns the answers of each turn, by line."""

    def run():
        words = ("run", "--flow", flow, "--data", data, "--replay", "--connection", connection)
        done = phi3(*words, cwd=tmp_path_factory.mktemp("work"), timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 turns without an answer" in done.stdout
        names = re.findall(r"turn \d: (\S+): ", done.stdout)
        assert len(names) == 3, done.stdout
        return [
            [outputs["answer"] for _, outputs in sorted(load_batch(name).answers.items())]
            for name in names
        ]

    return run


@pytest.fixture(scope="module")
def answers(replay):
    return replay()


def test_every_turn_has_a_stored_answer(answers):
    assert [len(turn) for turn in answers] == [5, 5, 5]
    assert all(answer.strip() for turn in answers for answer in turn)


def test_each_answer_is_the_answer_to_the_whole_conversation(endpoint, answers):
    """The history that was sent is the earlier questions with the model's own answers."""
    params = Params(temperature=0.0, max_new_tokens=TOKENS)
    connection = {"endpoint": f"{endpoint}/score", "contract": "chat", "key": KEY}
    without_history = 0
    with Phi3Client.from_connection(connection) as client:
        for number, questions in enumerate(CONVERSATIONS):
            messages = []
            for turn, question in enumerate(questions):
                messages.append({"role": "user", "content": question})
                answer = answers[turn][number]
                assert client.chat(messages, params).text == answer
                without_history += client.chat(question, params).text == answer and turn > 0
                messages.append({"role": "assistant", "content": answer})
    assert without_history < 5, "the history makes no difference: the test shows nothing"


def test_a_rerun_gives_equal_answers(replay, answers):
    assert replay() == answers
