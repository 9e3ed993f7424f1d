"""Accepted and rejected rows: what stays in memory, and what is written."""

from __future__ import annotations

import base64
import io
import json

from chats import chat_row
from phi3_ops.data.checks import DUPLICATE, NOT_JSON, TOO_LONG, Problem, check_chat, estimate_tokens
from phi3_ops.data.rows import AcceptedRows, RejectedRows, dump_row
from phi3_ops.data.source_rows import SourceRow


def add(accepted, row, line=1):
    return accepted.add(check_chat(row), SourceRow(line, row))


def test_an_accepted_row_is_recorded():
    accepted = AcceptedRows(estimate_tokens, None, "drop")
    accepted.start_part("in.jsonl")
    chat = add(accepted, chat_row("abcd", "efgh", fact="f"), line=7)
    accepted.set_location(1, 100, 20)
    assert chat.prompt == "abcd" and len(accepted) == 1
    assert (accepted.tokens[0], accepted.turns[0], accepted.lines[0]) == (11, 1, 7)
    assert (accepted.file_numbers[0], accepted.starts[0], accepted.sizes[0]) == (1, 100, 20)
    assert accepted.facts == ["f"]


def test_facts_are_dropped_if_one_row_has_none():
    accepted = AcceptedRows(estimate_tokens, None, "drop")
    add(accepted, chat_row("a", "b", fact="f"))
    add(accepted, chat_row("c", "d"))
    add(accepted, chat_row("e", "f", fact="g"))
    assert accepted.facts is None and len(accepted) == 3


def test_a_duplicate_names_the_file_and_line_of_the_first_row():
    accepted = AcceptedRows(estimate_tokens, None, "drop")
    accepted.start_part("/data/a.jsonl")
    add(accepted, chat_row("a", "b"), line=4)
    accepted.start_part("/data/b.jsonl")
    add(accepted, chat_row("c", "d"), line=5)
    assert add(accepted, chat_row(" a", "b")) == (DUPLICATE, "same text as a.jsonl, line 4")
    assert add(accepted, chat_row("c", "d\n")) == (DUPLICATE, "same text as b.jsonl, line 5")
    assert len(accepted) == 2


def test_over_long_chats():
    row = chat_row("abcd", "efgh", "ijkl", "mnop")  # 21 tokens, 11 without the last turn
    assert add(AcceptedRows(estimate_tokens, 20, "drop"), row).reason == TOO_LONG
    assert add(AcceptedRows(estimate_tokens, 10, "cut"), row).reason == TOO_LONG
    cut = AcceptedRows(estimate_tokens, 20, "cut")
    assert len(add(cut, row).messages) == 2 and cut.cut == 1
    unchanged = AcceptedRows(estimate_tokens, 20, "keep")
    assert len(add(unchanged, row).messages) == 4 and unchanged.cut == 0


def test_a_rejected_row_is_written_as_json_as_text_or_as_base64():
    file = io.BytesIO()
    rejected = RejectedRows(file)
    problem = Problem(NOT_JSON, "not JSON")
    rejected.add("/data/in.jsonl", SourceRow(1, {"n": 1}, b'{"n": 1}'), problem)
    rejected.add("/data/in.jsonl", SourceRow(2, None, b" {\n"), problem)
    rejected.add("/data/in.jsonl", SourceRow(3, None, b"\xff\n"), problem)
    rows = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert all(row["file"] == "in.jsonl" and row["reason"] == NOT_JSON for row in rows)
    assert (rows[0]["row"], rows[1]["text"]) == ({"n": 1}, "{")
    assert base64.b64decode(rows[2]["base64"]) == b"\xff\n"


def test_the_first_rejections_in_words():
    rejected = RejectedRows(io.BytesIO())
    assert rejected.in_words() == ""
    for line in range(1, 6):
        rejected.add("in.jsonl", SourceRow(line, 1), Problem(NOT_JSON, "bad"))
    lines = "; ".join(f"in.jsonl, line {line}: bad" for line in (1, 2, 3))
    assert rejected.in_words() == f"{lines}; and 2 more"
    assert len(rejected) == 5 and rejected.reasons == {NOT_JSON: 5}


def test_values_that_json_does_not_have_become_strings():
    assert dump_row({"x": 1j}) == b'{"x":"1j"}'
