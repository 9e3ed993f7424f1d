"""smollm2 as the teacher of `phi3 data --from-docs`: small, but its answers have the right form.

The scripted teacher in tests/phi3_ops/documents/test_make.py checks the counts exactly. This test shows
that the prompt, the schema and the judge work with a real model behind the local endpoint.
"""

from __future__ import annotations

import json

import pytest

from phi3_ops.files.json_files import read_jsonl
from processes import phi3
from tiny_endpoint import KEY

pytestmark = pytest.mark.slow

DOCUMENT = """# Opening hours

The library of Contoso opens at nine in the morning and closes at six in the evening.
On Sundays it is closed.

# Fees

A card of the library of Contoso costs twelve euros per year.
Children and students pay nothing for their card.
"""
MAX_CALLS = 12


def test_a_small_model_writes_questions_with_their_sources(endpoint, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/library.md").write_text(DOCUMENT, encoding="utf-8")
    variables = {
        "PHI3_CONNECTION_TEACHER_ENDPOINT": f"{endpoint}/v1",
        "PHI3_CONNECTION_TEACHER_KEY": KEY,
    }
    words = ["data", "--from-docs", "docs", "--connection", "teacher", "--questions", 1, "--json"]
    words += ["--out", "rows.jsonl", "--max-calls", MAX_CALLS]
    done = phi3(*words, cwd=tmp_path, env=variables)
    content = json.loads(done.stdout)
    passages, questions = content["passages"], content["questions"]
    assert done.returncode == (0 if content["complete"] else 1), done.stderr
    assert passages["found"] == 2 and passages["asked"] >= 1
    assert questions["written"] >= 1
    assert 2 <= content["calls"]["now"] <= MAX_CALLS
    assert content["calls"]["completion_tokens"] > 0
    for row in read_jsonl(tmp_path / "rows.jsonl"):
        origin = row["origin"]
        if row["kind"] == "answered":
            quote = DOCUMENT[origin["start"] : origin["end"]]
            assert quote == origin["quote"] and len(quote.split()) > 2
            assert origin["groundedness"] >= 4
    again = json.loads(phi3(*words, cwd=tmp_path, env=variables).stdout)
    if content["complete"]:
        assert again["calls"]["now"] == 0 and again["questions"] == questions
