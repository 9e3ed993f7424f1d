"""Conversations are replayed: each question follows the model's own answers, and none is left out."""

from __future__ import annotations

import json

import pytest

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.runs.conversations import count_unanswered_turns, replay_conversations
from processes import phi3


@pytest.fixture
def server():
    with echo_endpoint() as server:
        save_connection("c", {"endpoint": server.url, "contract": "chat"}, KEY)
        yield server
        delete_connection("c")


def write(path, *conversations):
    rows = []
    for questions in conversations:
        turns = [{"role": "user", "content": question} for question in questions]
        answers = [{"role": "assistant", "content": f"said {each}"} for each in questions]
        rows.append({"messages": [m for pair in zip(turns, answers) for m in pair]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def replay(data, folder):
    return replay_conversations(
        paths.FLOWS / "chat", data, folder, title="t", connections={"chat": {"connection": "c"}}
    )


def test_each_turn_follows_the_models_own_answers(server, tmp_path):
    data = write(tmp_path / "talks.jsonl", ["a1", "a2", "a3"], ["b1"], ["c1", "c2"])
    turns = replay(data, tmp_path / "rounds")
    assert [len(turn.rows) for turn in turns] == [3, 2, 1]
    assert [turn.asked.failed for turn in turns] == [0, 0, 0]
    last = next(r for r in server.requests if "a3" in json.dumps(r))["input_data"]["input_string"]
    assert [m["content"] for m in last] == ["a1", "a1", "a2", "a2", "a3"]  # the echo's answers
    assert turns[1].rows[1]["ground_truth"] == "said c2"
    assert turns[1].rows[1]["conversation"] == 2
    assert count_unanswered_turns(data, turns) == 0


def test_turns_after_a_failed_one_are_not_asked_but_counted(server, tmp_path):
    data = write(tmp_path / "talks.jsonl", ["fail", "a2", "a3"], ["b1", "b2"])
    turns = replay(data, tmp_path / "rounds")
    assert [(len(t.rows), t.asked.failed) for t in turns] == [(2, 1), (1, 0)]
    assert count_unanswered_turns(data, turns) == 3
    assert not any("a2" in json.dumps(request) for request in server.requests)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "row 1 has no `messages`"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "row 1 has no question"),
    ],
)
def test_a_row_that_is_not_a_conversation_is_named(tmp_path, row, message):
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(OpsError, match=message):
        replay(tmp_path / "d.jsonl", tmp_path)


def test_the_command_replays_and_scores_each_turn(server, tmp_path):
    data = write(tmp_path / "talks.jsonl", ["a1", "a2"], ["b1", "fail"])
    words = ["run", "--flow", "chat", "--data", data, "--replay", "--connection", "c", "--evaluate"]
    done = phi3(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "turn 1: t" in done.stdout.replace("chat-turn1", "t")
    assert "turn 2" in done.stdout and "2 lines, 1 failed" in done.stdout
    assert done.stdout.count("token_f1") == 2
    assert "1 turns without an answer" in done.stdout
