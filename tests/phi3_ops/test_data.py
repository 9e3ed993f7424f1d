from __future__ import annotations

import json
from collections import Counter

import pytest

from phi3_ops import data, paths
from phi3_ops.errors import OpsError
from phi3_ops.files import read_jsonl


def row(question: str, answer: str = "yes", **more: str) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"prompt": question, "messages": messages, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def prompts(rows):
    return [r["prompt"] for r in rows]


class TestShippedData:
    rows = data.load(paths.SAMPLE_DATA)

    def test_is_as_promised(self):
        assert len(self.rows) >= 300
        assert "Who founded Microsoft?" in prompts(self.rows)
        assert max(Counter(prompts(self.rows)).values()) == 1
        phrasings = Counter(r["fact"] for r in self.rows)
        assert min(phrasings.values()) >= 3

    def test_has_ultrachats_columns(self):
        assert all({"prompt", "prompt_id", "messages"} <= r.keys() for r in self.rows)
        assert len({r["prompt_id"] for r in self.rows}) == len(self.rows)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_split_keeps_phrasings_and_facts_for_testing(self, seed):
        parts = data.split(self.rows, seed=seed)
        trained = {r["fact"] for r in parts.train}
        kinds = Counter(kind for kind, _ in parts.test)
        assert len(parts.train) + len(parts.test) == len(self.rows)
        assert kinds[data.HELD_OUT] >= 60 and kinds[data.UNKNOWN] >= 20
        for kind, r in parts.test:
            assert (r["fact"] in trained) == (kind == data.HELD_OUT)
        assert not set(prompts(parts.train)) & {r["prompt"] for _, r in parts.test}
        assert "Who founded Microsoft?" in prompts(parts.train)


def test_same_seed_same_split_other_seed_other_split():
    rows = [row(f"q{n}") for n in range(50)]
    assert data.split(rows, seed=7) == data.split(rows, seed=7)
    assert data.split(rows, seed=7) != data.split(rows, seed=8)


@pytest.mark.parametrize(("count", "share", "tested"), [(10, 0.2, 2), (2, 0.01, 1), (5, 0.5, 2)])
def test_plain_data_is_split_by_share(count, share, tested):
    parts = data.split([row(f"q{n}") for n in range(count)], seed=1, test_share=share)
    assert (len(parts.test), len(parts.train)) == (tested, count - tested)


def test_prepare_writes_files_and_manifest(tmp_path):
    source = write(tmp_path / "in.jsonl", [row(f"q{n}", f"a{n}") for n in range(10)])
    manifest = data.prepare(source, tmp_path / "out", seed=3)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert manifest["rows"] == {"all": 10, "train": 8, "test": 2}
    asked = read_jsonl(tmp_path / "out" / "questions.jsonl")
    assert {(r["question"], r["ground_truth"]) for r in asked} == {
        (f"q{n}", f"a{n}") for n in range(10)
    }


BAD_ROWS = {
    "no messages": ({"prompt": "x"}, "no `messages`"),
    "role": (row("x") | {"messages": [{"role": "bot", "content": "x"}]}, "the role 'bot'"),
    "empty": (row("x", "  "), "message 2 (assistant) is empty"),
    "order": (row("x") | {"messages": row("x")["messages"][::-1]}, "not 'user'"),
    "no answer": (row("x") | {"messages": row("x")["messages"][:1]}, "not the assistant's"),
    "not text": (row("x", 3), "message 2 (assistant) is empty"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, case):
    bad, problem = BAD_ROWS[case]
    source = write(tmp_path / "in.jsonl", [row("good"), bad])
    with pytest.raises(OpsError, match="row 2: ") as caught:
        data.prepare(source, tmp_path / "out", seed=1)
    assert problem in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_system_message_is_allowed_in_front(tmp_path):
    with_system = row("x")
    with_system["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert data.load(write(tmp_path / "in.jsonl", [with_system, row("y")]))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": [\n', "line 1: not JSON"),
        (b"[1]\n", "line 1: not a JSON object"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"", "has 0 rows"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, problem):
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    with pytest.raises(OpsError) as caught:
        data.prepare(source, tmp_path / "out", seed=1)
    assert problem in str(caught.value) and str(source) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OpsError, match="there is no file"):
        data.prepare(tmp_path / "none.jsonl", tmp_path / "out", seed=1)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_a_share_outside_its_range_is_refused(tmp_path, share):
    with pytest.raises(OpsError, match="test share"):
        data.prepare(paths.SAMPLE_DATA, tmp_path, seed=1, test_share=share)
