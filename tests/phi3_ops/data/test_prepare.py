"""Data prepared: the files together, the split, what is rejected and why."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections import Counter

import pytest

from phi3_ops import paths
from phi3_ops.data import prepare as prepare_module
from phi3_ops.data.checks import DUPLICATE, EMPTY, NO_ANSWER, NO_MESSAGES, NOT_JSON, NOT_UTF8, ROLES
from phi3_ops.data.prepare import HELD_OUT, TRAINED, UNKNOWN, DataOptions, prepare_data
from phi3_ops.data.split import split_chats
from phi3_ops.errors import OpsError
from phi3_ops.files import read_jsonl
from processes import phi3

FILES = {"manifest.json", "questions.jsonl", "rejects.jsonl", "test.jsonl", "train.jsonl"}


def row(*contents, **more):
    contents = contents if len(contents) > 1 else (*contents, "yes")
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents)]
    return {"messages": messages, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def prepare(tmp_path, source, **options):
    return prepare_data(source, tmp_path / "out", seed=1, options=DataOptions(**options))


def written(tmp_path, name):
    return read_jsonl(tmp_path / "out" / f"{name}.jsonl")


def prompts(rows):
    return {r["messages"][0]["content"] for r in rows}


class TestShippedData:
    rows = read_jsonl(paths.SAMPLE_DATA)

    def test_is_as_promised(self):
        assert len(self.rows) >= 300
        phrasings = Counter(r["fact"] for r in self.rows)
        assert min(phrasings.values()) >= 3
        assert len({r["prompt"] for r in self.rows}) == len(self.rows)
        assert len({r["prompt_id"] for r in self.rows}) == len(self.rows)
        assert all(r["prompt"] == r["messages"][0]["content"] for r in self.rows)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_split_keeps_phrasings_and_facts_for_testing(self, tmp_path, seed):
        manifest = prepare_data(paths.SAMPLE_DATA, tmp_path / "out", seed=seed)
        assert manifest["rejected"] == {}
        train, test = written(tmp_path, "train"), written(tmp_path, "test")
        assert len(train) + len(test) == len(self.rows)
        assert manifest["kinds"][HELD_OUT] >= 60 and manifest["kinds"][UNKNOWN] >= 20
        trained = {r["fact"] for r in train}
        for asked in written(tmp_path, "questions"):
            assert (asked["fact"] in trained) == (asked["kind"] != UNKNOWN)
        assert not prompts(train) & prompts(test)
        assert "Who founded Microsoft?" in prompts(train)

    def test_rows_are_written_as_they_were(self, tmp_path):
        prepare(tmp_path, paths.SAMPLE_DATA)
        lines = (tmp_path / "out" / "train.jsonl").read_bytes().splitlines()
        assert set(lines) < set(paths.SAMPLE_DATA.read_bytes().splitlines())


class TestSplit:
    def split(self, prompts, facts=None, seed=7, share=0.2):
        return split_chats(prompts, facts, seed=seed, test_share=share)

    def test_same_seed_same_split_other_seed_other_split(self):
        assert self.split(range(50)) == self.split(range(50))
        assert self.split(range(50)) != self.split(range(50), seed=8)

    @pytest.mark.parametrize(
        ("count", "share", "tested"), [(10, 0.2, 2), (2, 0.01, 1), (5, 0.5, 2), (2, 0.99, 1)]
    )
    def test_is_by_share_and_leaves_no_side_empty(self, count, share, tested):
        parts = self.split(range(count), share=share)
        assert (len(parts.test), len(parts.train)) == (tested, count - tested)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("facts", [None, [str(n % 7) for n in range(60)]])
    def test_a_prompt_is_on_one_side(self, seed, facts):
        asked = [n % 25 for n in range(60)]
        parts = self.split(asked, facts, seed)
        tested = {asked[n] for _, n in parts.test}
        assert tested and not tested & {asked[n] for n in parts.train}
        assert sorted([*parts.train, *(n for _, n in parts.test)]) == list(range(60))

    def test_prompts_that_are_asked_often(self):
        assert len(self.split([0] * 6 + [1] * 4).test) == 4
        with pytest.raises(OpsError, match="the same first prompt"):
            self.split([0] * 10)

    def test_facts_with_one_phrasing_are_split_like_other_data(self):
        assert len(self.split(range(10), [str(n) for n in range(10)]).test) == 2


BAD_LINES = {
    "no messages": (b'{"prompt": "x"}', NO_MESSAGES, "no `messages`"),
    "no object": (b"[1]", NO_MESSAGES, "no JSON object"),
    "role": (b'{"messages": [{"role": "bot", "content": "x"}]}', ROLES, "the role 'bot'"),
    "order": (json.dumps({"messages": row("x")["messages"][::-1]}).encode(), ROLES, "not 'user'"),
    "no answer": (json.dumps(row("x", "y", "z")).encode(), NO_ANSWER, "not the assistant's"),
    "empty": (json.dumps(row("x", " \n ")).encode(), EMPTY, "message 2 (assistant) is empty"),
    "no text": (json.dumps(row("x", 3)).encode(), EMPTY, "message 2 (assistant) is empty"),
    "system only": (b'{"messages": [{"role": "system", "content": "x"}]}', NO_ANSWER, "last"),
    "half": (b'{"messages": [', NOT_JSON, "not JSON ("),
    "surrogate": (b'{"messages": "\\ud800"}', NOT_JSON, "surrogate"),
    "latin-1": (b'{"messages": "\xe4"}', NOT_UTF8, "not UTF-8 (byte 15)"),
    "duplicate": (json.dumps(row("q3", " a3\r\n")).encode(), DUPLICATE, "as in.jsonl, line 4"),
}


def with_bad_line(tmp_path, line):
    """A source with ten good rows, the bad one behind an empty line."""
    source = write(tmp_path / "in.jsonl", [row(f"q{n}", f"a{n}") for n in range(10)])
    source.write_bytes(source.read_bytes() + b"\n" + line + b"\n")
    return source


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_row_is_rejected_with_its_reason(tmp_path, case):
    line, reason, detail = BAD_LINES[case]
    manifest = prepare(tmp_path, with_bad_line(tmp_path, line))
    assert manifest["rejected"] == {reason: 1}
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


def test_none_vanishes(tmp_path):
    good = [row(f"q{n % 30}", f"a{n % 45}", *(("q", "a") * (n % 3))) for n in range(300)]
    lines = [json.dumps(r).encode() for r in good]
    lines += [line for line, *_ in BAD_LINES.values()]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    rows = prepare(tmp_path, tmp_path / "in.jsonl", max_tokens=30)["rows"]
    counted = [len(written(tmp_path, name)) for name in ("train", "test", "rejects")]
    assert [rows[name] for name in ("train", "test", "rejected")] == counted
    assert rows["read"] == sum(counted) == len(lines)
    assert not prompts(written(tmp_path, "train")) & prompts(written(tmp_path, "test"))


class TestSources:
    chats = [row(f"q{n}", f"a{n}", n=n) for n in range(10)]

    def found(self, tmp_path):
        files = ("train", "test")
        return sorted((r for name in files for r in written(tmp_path, name)), key=lambda r: r["n"])

    def parquet(self, path, rows=None):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows or self.chats), path, row_group_size=3)
        return path

    def csv(self, path, header=("prompt", "answer", "n"), **options):
        with path.open("w", newline="", **options) as file:
            csv.writer(file).writerows([header, *((f"q{n}", f"a{n}", n) for n in range(10))])
        return path

    def test_parquet(self, tmp_path):
        prepare(tmp_path, self.parquet(tmp_path / "in.parquet"))
        assert self.found(tmp_path) == self.chats

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_csv(self, tmp_path, encoding):
        prepare(tmp_path, self.csv(tmp_path / "in.csv", encoding=encoding))
        chats = [{"prompt": f"q{n}", **self.chats[n], "n": str(n)} for n in range(10)]
        assert self.found(tmp_path) == chats

    def test_columns_by_name(self, tmp_path):
        source = self.csv(tmp_path / "in.csv", header=("frage", "antwort", "n"))
        prepare(tmp_path, source, columns=("frage", "antwort"))
        assert [r["messages"] for r in self.found(tmp_path)] == [r["messages"] for r in self.chats]

    def test_bad_records_of_a_csv(self, tmp_path):
        text = b'prompt,answer\nq1,a1\n"q\n2","a\n2"\nq3\nq4,\xe4\nq5,"a"5\nq6,\nq7,a7\n'
        (tmp_path / "in.csv").write_bytes(text)
        rows = prepare(tmp_path, tmp_path / "in.csv")["rows"]
        assert (rows["read"], rows["train"] + rows["test"]) == (7, 3)
        found = {(r["line"], r["reason"]) for r in written(tmp_path, "rejects")}
        assert found == {(6, "not CSV"), (7, NOT_UTF8), (8, "not CSV"), (9, EMPTY)}
        assert base64.b64decode(written(tmp_path, "rejects")[1]["base64"]) == b"q4,\xe4\n"

    def test_a_folder_and_duplicates_across_its_files(self, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        write(folder / "a.jsonl", self.chats[:6])
        self.parquet(folder / "b.parquet", self.chats[4:])
        (folder / "readme.md").write_text("no data")
        manifest = prepare(tmp_path, folder)
        assert manifest["source"]["files"].keys() == {"a.jsonl", "b.parquet"}
        assert self.found(tmp_path) == self.chats
        (first, _) = written(tmp_path, "rejects")
        assert (first["file"], first["line"]) == ("b.parquet", 1)
        assert first["detail"] == "says the same as a.jsonl, line 5"

    def test_byte_order_mark_and_line_ends(self, tmp_path):
        lines = [json.dumps(r) for r in self.chats]
        (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
        prepare(tmp_path, tmp_path / "in.jsonl")
        assert self.found(tmp_path) == self.chats
        assert b"\r" not in (tmp_path / "out" / "train.jsonl").read_bytes()


UTF16 = '{"messages": []}\n'
CANNOT = {
    "missing": ("none.jsonl", None, "does not exist"),
    "UTF-16 marked": ("in.jsonl", UTF16.encode("utf-16"), "UTF-16 or binary, not UTF-8"),
    "UTF-16": ("in.csv", UTF16.encode("utf-16-le"), "UTF-16 or binary, not UTF-8"),
    "empty": ("in.jsonl", b"", "has 0 good rows"),
    "one row": ("in.jsonl", json.dumps(row("x")).encode(), "has 1 good row. At least 2"),
    "one bad row": ("in.jsonl", b"{\n", "in.jsonl, line 1: not JSON"),
    "header only": ("in.csv", b"prompt,answer\n", "has 0 good rows"),
    "columns": ("in.csv", b"question,answer\nq,a\n", "no column 'prompt', only question, answer"),
    "no Parquet": ("in.parquet", b"PAR1 not really", "cannot read"),
    "format": ("in.txt", b"x", "the format of"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_cannot_be_used_is_named_and_nothing_written(tmp_path, case):
    name, content, told = CANNOT[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OpsError) as caught:
        prepare(tmp_path, tmp_path / name)
    assert told in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_a_share_outside_its_range_is_refused(tmp_path, share):
    with pytest.raises(OpsError, match="test share"):
        prepare_data(paths.SAMPLE_DATA, tmp_path, seed=1, test_share=share)


class TestLength:
    """Three chats of 1, 2 and 3 turns; a turn takes 2 × (4 + 10) tokens, a chat one more."""

    turn = ("question of forty letters, spaces and so.", "an answer of forty letters and that's it")

    def source(self, tmp_path):
        rows = [row(f"{n}{self.turn[0][1:]}", *(self.turn * n)[1:], n=n) for n in (1, 2, 3)]
        return write(tmp_path / "in.jsonl", rows)

    def lengths(self, tmp_path):
        rows = [*written(tmp_path, "train"), *written(tmp_path, "test")]
        return {r["n"]: len(r["messages"]) for r in rows}

    def test_estimate(self, tmp_path):
        tokens = prepare(tmp_path, self.source(tmp_path))["tokens"]
        assert tokens["all"] == {"sum": 171, "p50": 57, "p95": 85, "max": 85}
        assert "estimated" in tokens["counted"]
        assert sum(count for *_, count in tokens["histogram"]) == 3

    def test_drop(self, tmp_path):
        rows = prepare(tmp_path, self.source(tmp_path), max_tokens=57)["rows"]
        assert rows["rejected"] == 1 and self.lengths(tmp_path) == {1: 2, 2: 4}
        assert written(tmp_path, "rejects")[0]["detail"] == "85 tokens, more than 57"

    def test_cut(self, tmp_path):
        source = self.source(tmp_path)
        rows = prepare(tmp_path, source, max_tokens=60, over_long="cut")["rows"]
        assert (rows["cut"], rows["rejected"]) == (1, 0)
        assert self.lengths(tmp_path) == {1: 2, 2: 4, 3: 4}
        tokens = prepare(tmp_path, source, max_tokens=57, over_long="cut")["tokens"]
        assert tokens["all"]["max"] == 57

    def test_cut_to_nothing_is_rejected(self, tmp_path):
        source = write(tmp_path / "in.jsonl", [row("a", "b"), row("c", "d"), row("x " * 99, "y")])
        manifest = prepare(tmp_path, source, max_tokens=20, over_long="cut")
        assert manifest["rejected"] == {"too long": 1}

    def test_keep(self, tmp_path):
        rows = prepare(tmp_path, self.source(tmp_path), max_tokens=30, over_long="keep")["rows"]
        assert (rows["over_long"], rows["rejected"]) == (2, 0)

    def test_a_tokenizer_counts_as_the_chat_template_does(self, tmp_path, tiny_model_dir):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        chats = [row("Wer ist das?", "日本 🙂\n\n  eins"), row(" a ", "b\n", "c" * 50, "1 2 3 ")]
        chats[1]["messages"].insert(0, {"role": "system", "content": "Be brief. "})
        source = write(tmp_path / "in.jsonl", chats)
        tokens = prepare(tmp_path, source, tokenizer=str(tiny_model_dir))["tokens"]
        encoded = [tokenizer.apply_chat_template(r["messages"])["input_ids"] for r in chats]
        assert tokens["all"]["sum"] == sum(map(len, encoded))

    def test_a_tokenizer_that_is_none(self, tmp_path):
        with pytest.raises(OpsError, match="cannot read the tokenizer"):
            prepare(tmp_path, self.source(tmp_path), tokenizer=str(tmp_path))


class TestFiles:
    def test_manifest_names_hashes_and_counts(self, tmp_path):
        import hashlib

        source = write(tmp_path / "in.jsonl", [row(f"q{n}", f"a{n}") for n in range(10)])
        manifest = prepare(tmp_path, source)
        out = tmp_path / "out"
        assert {p.name for p in out.iterdir()} == FILES
        assert json.loads((out / "manifest.json").read_text()) == manifest
        assert manifest["seed"] == 1
        hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES}
        assert manifest["sha256"].items() <= hashes.items() and len(manifest["sha256"]) == 4
        source_hash = hashlib.sha256(source.read_bytes()).hexdigest()
        assert manifest["source"] == {"name": "in.jsonl", "files": {"in.jsonl": source_hash}}

    def test_questions_are_the_first_turns(self, tmp_path):
        chats = [row(f"q{n}", f"a{n}", "more?", "no") for n in range(10)]
        chats[0]["messages"].insert(0, {"role": "system", "content": "Be brief."})
        prepare(tmp_path, write(tmp_path / "in.jsonl", chats))
        asked = {(r["question"], r["ground_truth"]) for r in written(tmp_path, "questions")}
        assert asked == {(f"q{n}", f"a{n}") for n in range(10)}

    def test_questions_are_no_more_than_tell_something(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prepare_module, "MOST_QUESTIONS", 5)
        prepare(tmp_path, write(tmp_path / "in.jsonl", [row(f"q{n}") for n in range(100)]))
        kinds = Counter(r["kind"] for r in written(tmp_path, "questions"))
        assert kinds == {TRAINED: 5, UNKNOWN: 5}

    def test_they_change_together_or_not_at_all(self, tmp_path, monkeypatch):
        source = write(tmp_path / "in.jsonl", [row(f"q{n}") for n in range(10)])
        prepare(tmp_path, source)
        earlier = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
        moves = iter(range(8))  # the five old ones away, three new ones in, then no more
        replace = os.replace

        def fail(old, new):
            if next(moves, None) is None and "earlier" not in str(old):
                raise KeyboardInterrupt
            replace(old, new)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, write(source, [row(f"p{n}") for n in range(20)]))
        assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == earlier

    def test_other_files_of_the_folder_stay(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        prepare(tmp_path, paths.SAMPLE_DATA)
        assert {p.name for p in (tmp_path / "out").iterdir()} == {*FILES, "notes.txt"}

    def test_the_source_is_not_replaced(self, tmp_path):
        prepare(tmp_path, paths.SAMPLE_DATA)
        with pytest.raises(OpsError, match="is the source, and would be replaced"):
            prepare(tmp_path, tmp_path / "out" / "train.jsonl")

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "out").write_text("")
        with pytest.raises(OpsError, match="cannot write"):
            prepare(tmp_path, paths.SAMPLE_DATA)


class TestCommand:
    def test_shows_what_came_of_the_rows(self, tmp_path):
        with_bad_line(tmp_path, BAD_LINES["empty"][0])
        done = phi3("data", "--source", "in.jsonl", "--out", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("8 rows to train, 2 to test, in out\n")
        lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
        assert {"read 11 in.jsonl", "- empty content 1 see out/rejects.jsonl"} <= lines
        assert "█" in done.stdout

    def test_strict_is_one_line(self, tmp_path):
        with_bad_line(tmp_path, BAD_LINES["empty"][0])
        done = phi3("data", "--source", "in.jsonl", "--strict", cwd=tmp_path)
        assert done.returncode == 1
        assert "in.jsonl, line 12: message 2 (assistant) is empty" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]
