"""Prepared data: the files change together, every row is counted, and rejections have a reason."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter

import pytest

from chats import chat_row, prepare, prompts, write_rows, written
from phi3_ops import paths
from phi3_ops.data.checks import DUPLICATE, EMPTY, NO_ANSWER, NO_MESSAGES, NOT_JSON, NOT_UTF8, ROLES
from phi3_ops.data.lengths import LengthSummary
from phi3_ops.data.prepare import prepare_data
from phi3_ops.data.split import HELD_OUT, TRAINED, UNKNOWN
from phi3_ops.errors import OpsError
from phi3_ops.files.json_files import read_jsonl
from phi3_ops.files.ownership import MARKER_FILE, read_marker

FILES = {"manifest.json", "questions.jsonl", "rejects.jsonl", "test.jsonl", "train.jsonl"}


class TestShippedData:
    rows = read_jsonl(paths.SAMPLE_DATA)

    def test_has_enough_facts_and_phrasings(self):
        assert len(self.rows) >= 300
        phrasings = Counter(r["fact"] for r in self.rows)
        assert min(phrasings.values()) >= 3
        assert len({r["prompt"] for r in self.rows}) == len(self.rows)
        assert len({r["prompt_id"] for r in self.rows}) == len(self.rows)
        assert all(r["prompt"] == r["messages"][0]["content"] for r in self.rows)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_split_keeps_phrasings_and_facts_for_testing(self, tmp_path, seed):
        manifest = prepare_data(paths.SAMPLE_DATA, tmp_path / "out", seed=seed)
        assert manifest.rejected == {}
        train, test = written(tmp_path, "train"), written(tmp_path, "test")
        assert len(train) + len(test) == len(self.rows)
        assert manifest.kinds[HELD_OUT] >= 60 and manifest.kinds[UNKNOWN] >= 20
        trained = {r["fact"] for r in train}
        for question in written(tmp_path, "questions"):
            assert (question["fact"] in trained) == (question["kind"] != UNKNOWN)
        assert not prompts(train) & prompts(test)
        assert "Who founded Microsoft?" in prompts(train)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_later_turns_ask_only_for_what_is_trained(self, tmp_path, seed):
        prepare_data(paths.SAMPLE_DATA, tmp_path / "out", seed=seed)
        train, test = written(tmp_path, "train"), written(tmp_path, "test")
        assert max(len(row["messages"]) for row in self.rows) == 6
        conversations = [row for row in train if len(row["messages"]) > 2]
        assert len(conversations) >= 40
        trained = prompts(train)
        for row in conversations:
            later = {message["content"] for message in row["messages"][2::2]}
            assert later <= trained and len(row["later_facts"]) == len(later)
        facts = {row["fact"] for row in train}
        unknown = {row["fact"] for row in test} - facts
        assert len(unknown) == 6 and not unknown & {
            f for r in train for f in r.get("later_facts", [])
        }

    def test_rows_are_copied_unchanged(self, tmp_path):
        prepare(tmp_path, paths.SAMPLE_DATA)
        lines = (tmp_path / "out" / "train.jsonl").read_bytes().splitlines()
        assert set(lines) < set(paths.SAMPLE_DATA.read_bytes().splitlines())


BAD_LINES = {
    "no messages": (b'{"prompt": "x"}', NO_MESSAGES, "no `messages`"),
    "no object": (b"[1]", NO_MESSAGES, "not a JSON object"),
    "role": (b'{"messages": [{"role": "bot", "content": "x"}]}', ROLES, "the role 'bot'"),
    "order": (
        json.dumps({"messages": chat_row("x")["messages"][::-1]}).encode(),
        ROLES,
        "not 'user'",
    ),
    "no answer": (json.dumps(chat_row("x", "y", "z")).encode(), NO_ANSWER, "not the assistant's"),
    "empty": (json.dumps(chat_row("x", " \n ")).encode(), EMPTY, "message 2 (assistant) is empty"),
    "no text": (json.dumps(chat_row("x", 3)).encode(), EMPTY, "message 2 (assistant) is empty"),
    "system only": (b'{"messages": [{"role": "system", "content": "x"}]}', NO_ANSWER, "last"),
    "half": (b'{"messages": [', NOT_JSON, "not JSON ("),
    "surrogate": (b'{"messages": "\\ud800"}', NOT_JSON, "surrogate"),
    "latin-1": (b'{"messages": "\xe4"}', NOT_UTF8, "not UTF-8 (byte 15)"),
    "duplicate": (json.dumps(chat_row("q3", " a3\r\n")).encode(), DUPLICATE, "as in.jsonl, line 4"),
}


def with_bad_line(tmp_path, line):
    """A source of ten good rows, an empty line, and a bad row."""
    source = write_rows(tmp_path / "in.jsonl", [chat_row(f"q{n}", f"a{n}") for n in range(10)])
    source.write_bytes(source.read_bytes() + b"\n" + line + b"\n")
    return source


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_row_is_rejected_with_its_reason(tmp_path, case):
    line, reason, detail = BAD_LINES[case]
    manifest = prepare(tmp_path, with_bad_line(tmp_path, line))
    assert manifest.rejected == {reason: 1}
    (rejected,) = written(tmp_path, "rejects")
    assert (rejected["file"], rejected["line"]) == ("in.jsonl", 12)
    assert rejected["reason"] == reason and detail in rejected["detail"]
    text = base64.b64decode(rejected.get("base64", "")) or rejected.get("text", "").encode()
    assert text.strip() == line if text else rejected["row"] == json.loads(line)


@pytest.mark.parametrize("case", ["empty", "latin-1", "duplicate"])
def test_strict_fails_and_writes_nothing(tmp_path, case):
    line, _, detail = BAD_LINES[case]
    source = with_bad_line(tmp_path, line)
    with pytest.raises(OpsError, match=r"1 of 11 rows .* line 12: ") as caught:
        prepare(tmp_path, source, strict=True)
    assert detail in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_every_row_is_counted(tmp_path):
    good_rows = [chat_row(f"q{n % 30}", f"a{n % 45}", *(("q", "a") * (n % 3))) for n in range(300)]
    lines = [json.dumps(r).encode() for r in good_rows]
    lines += [line for line, *_ in BAD_LINES.values()]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    rows = prepare(tmp_path, tmp_path / "in.jsonl", max_tokens=30).rows
    counted = [len(written(tmp_path, name)) for name in ("train", "test", "rejects")]
    assert [rows.train, rows.test, rows.rejected] == counted
    assert rows.read == sum(counted) == len(lines)
    assert not prompts(written(tmp_path, "train")) & prompts(written(tmp_path, "test"))


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_a_share_outside_its_range_is_refused(tmp_path, share):
    with pytest.raises(OpsError, match="test share"):
        prepare_data(paths.SAMPLE_DATA, tmp_path, seed=1, test_share=share)


class TestLength:
    """Three chats of 1, 2 and 3 turns; a turn takes 2 × (4 + 10) tokens, a chat one more."""

    turn = ("question of forty letters, spaces and so.", "an answer of forty letters and that's it")

    def source(self, tmp_path):
        rows = [chat_row(f"{n}{self.turn[0][1:]}", *(self.turn * n)[1:], n=n) for n in (1, 2, 3)]
        return write_rows(tmp_path / "in.jsonl", rows)

    def lengths(self, tmp_path):
        rows = [*written(tmp_path, "train"), *written(tmp_path, "test")]
        return {r["n"]: len(r["messages"]) for r in rows}

    def test_estimate(self, tmp_path):
        tokens = prepare(tmp_path, self.source(tmp_path)).tokens
        assert tokens.all == LengthSummary(sum=171, p50=57, p95=85, max=85)
        assert "estimated" in tokens.counted
        assert sum(entry.total for entry in tokens.histogram) == 3

    def test_drop(self, tmp_path):
        rows = prepare(tmp_path, self.source(tmp_path), max_tokens=57).rows
        assert rows.rejected == 1 and self.lengths(tmp_path) == {1: 2, 2: 4}
        assert written(tmp_path, "rejects")[0]["detail"] == "85 tokens, more than 57"

    def test_cut(self, tmp_path):
        source = self.source(tmp_path)
        rows = prepare(tmp_path, source, max_tokens=60, over_long="cut").rows
        assert (rows.cut, rows.rejected) == (1, 0)
        assert self.lengths(tmp_path) == {1: 2, 2: 4, 3: 4}
        tokens = prepare(tmp_path, source, max_tokens=57, over_long="cut").tokens
        assert tokens.all.max == 57

    def test_cut_to_nothing_is_rejected(self, tmp_path):
        source = write_rows(
            tmp_path / "in.jsonl",
            [chat_row("a", "b"), chat_row("c", "d"), chat_row("x " * 99, "y")],
        )
        manifest = prepare(tmp_path, source, max_tokens=20, over_long="cut")
        assert manifest.rejected == {"too long": 1}

    def test_keep(self, tmp_path):
        rows = prepare(tmp_path, self.source(tmp_path), max_tokens=30, over_long="keep").rows
        assert (rows.over_long, rows.rejected) == (2, 0)

    def test_a_tokenizer_counts_as_the_chat_template_does(self, tmp_path, tiny_model_dir):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        chats = [
            chat_row("Wer ist das?", "日本 🙂\n\n  eins"),
            chat_row(" a ", "b\n", "c" * 50, "1 2 3 "),
        ]
        chats[1]["messages"].insert(0, {"role": "system", "content": "Be brief. "})
        source = write_rows(tmp_path / "in.jsonl", chats)
        tokens = prepare(tmp_path, source, tokenizer=str(tiny_model_dir)).tokens
        encoded = [tokenizer.apply_chat_template(r["messages"])["input_ids"] for r in chats]
        assert tokens.all.sum == sum(map(len, encoded))

    def test_a_folder_without_a_tokenizer(self, tmp_path):
        with pytest.raises(OpsError, match="cannot read the tokenizer"):
            prepare(tmp_path, self.source(tmp_path), tokenizer=str(tmp_path))


class TestFiles:
    def test_manifest_names_hashes_and_counts(self, tmp_path):
        import hashlib

        source = write_rows(tmp_path / "in.jsonl", [chat_row(f"q{n}", f"a{n}") for n in range(10)])
        manifest = prepare(tmp_path, source)
        out = tmp_path / "out"
        assert {p.name for p in out.iterdir()} == {*FILES, MARKER_FILE}
        assert json.loads((out / "manifest.json").read_text()) == manifest.to_json()
        assert manifest.seed == 1
        hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES}
        assert manifest.sha256.items() <= hashes.items() and len(manifest.sha256) == 4
        source_hash = hashlib.sha256(source.read_bytes()).hexdigest()
        assert manifest.to_json()["source"] == {
            "name": "in.jsonl",
            "files": {"in.jsonl": source_hash},
        }

    def test_questions_are_the_first_turns(self, tmp_path):
        chats = [chat_row(f"q{n}", f"a{n}", "more?", "no") for n in range(10)]
        chats[0]["messages"].insert(0, {"role": "system", "content": "Be brief."})
        prepare(tmp_path, write_rows(tmp_path / "in.jsonl", chats))
        questions = {(r["question"], r["ground_truth"]) for r in written(tmp_path, "questions")}
        assert questions == {(f"q{n}", f"a{n}") for n in range(10)}

    def test_the_number_of_questions_is_limited(self, tmp_path):
        source = write_rows(tmp_path / "in.jsonl", [chat_row(f"q{n}") for n in range(100)])
        prepare(tmp_path, source, max_questions=5)
        kinds = Counter(r["kind"] for r in written(tmp_path, "questions"))
        assert kinds == {TRAINED: 5, HELD_OUT: 5}

    def test_all_files_change_or_none(self, tmp_path, monkeypatch):
        source = write_rows(tmp_path / "in.jsonl", [chat_row(f"q{n}") for n in range(10)])
        prepare(tmp_path, source)
        earlier = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
        moves = iter(range(9))  # six old files out, three new files in, then an error
        replace = os.replace

        def fail(old, new):
            if next(moves, None) is None and "earlier" not in str(old):
                raise KeyboardInterrupt
            replace(old, new)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, write_rows(source, [chat_row(f"p{n}") for n in range(20)]))
        assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == earlier

    def test_other_files_of_the_folder_stay(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        prepare(tmp_path, paths.SAMPLE_DATA)
        assert {p.name for p in (tmp_path / "out").iterdir()} == {*FILES, MARKER_FILE, "notes.txt"}

    @pytest.mark.finding(
        1,
        "`phi3 data --out` with a folder that holds a foreign `train.jsonl`",
        "the file is not replaced",
    )
    @pytest.mark.parametrize("name", sorted(FILES))
    def test_a_file_of_others_is_not_replaced(self, tmp_path, name):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text("mine")
        with pytest.raises(OpsError, match=f"{name} exists, and phi3 did not write it"):
            prepare(tmp_path, paths.SAMPLE_DATA)
        assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["mine"]

    def test_the_marker_lists_the_files_and_keeps_its_id(self, tmp_path):
        prepare(tmp_path, paths.SAMPLE_DATA)
        first = read_marker(tmp_path / "out")
        assert first.files == FILES
        prepare(tmp_path, paths.SAMPLE_DATA)
        assert read_marker(tmp_path / "out") == first

    def test_the_source_is_not_replaced(self, tmp_path):
        prepare(tmp_path, paths.SAMPLE_DATA)
        with pytest.raises(OpsError, match="is the source, and would be replaced"):
            prepare(tmp_path, tmp_path / "out" / "train.jsonl")

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "out").write_text("")
        with pytest.raises(OpsError, match="cannot write"):
            prepare(tmp_path, paths.SAMPLE_DATA)
