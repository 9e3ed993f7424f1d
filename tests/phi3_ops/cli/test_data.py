"""`phi3 data`: what it prints, and its options."""

from __future__ import annotations

import json

import pytest

from chats import chat_row, write_rows
from phi3_ops.cli import main
from processes import phi3


def write_source(tmp_path):
    """Ten good rows, an empty line, and a row with an empty message."""
    source = write_rows(tmp_path / "in.jsonl", [chat_row(f"q{n}", f"a{n}") for n in range(10)])
    bad = json.dumps(chat_row("x", " \n ")).encode()
    source.write_bytes(source.read_bytes() + b"\n" + bad + b"\n")


def test_it_prints_the_numbers_of_rows_and_the_reasons(tmp_path):
    write_source(tmp_path)
    done = phi3("data", "--source", "in.jsonl", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 rows to train, 2 to test, in out\n")
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert {"read 11 in.jsonl", "- empty content 1 see out/rejects.jsonl"} <= lines
    assert "█" in done.stdout


def test_the_error_of_strict_is_one_line(tmp_path):
    write_source(tmp_path)
    done = phi3("data", "--source", "in.jsonl", "--strict", cwd=tmp_path)
    assert done.returncode == 1
    assert "in.jsonl, line 12: message 2 (assistant) is empty" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_action_for_over_long_chats_needs_a_maximum(capsys):
    assert main(["data", "--over-long", "cut"]) == 1
    assert "--over-long has no effect without --max-tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-tokens", "x"), "argument --max-tokens: x is not"),
        (("--test-share", "x"), "argument --test-share: x is not a number"),
        (("--seed", "x"), "argument --seed: x is not an integer"),
        (("--refusal", " "), "argument --refusal: the text is empty; leave the option out"),
    ],
)
def test_a_wrong_value_is_named(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
