"""Rows with a chosen and a rejected answer: they become chats, and wrong ones are rejected."""

import json

import pytest

from make_preference_samples import PREFERENCES, ROWS_PER_TAG, make_rows
from phi3_ops.data import DataOptions, prepare_data
from phi3_ops.data.preferences import as_chat
from phi3_ops.errors import OpsError

USER = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("good", "bad"))


def prepare(tmp_path, rows, **options):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = tmp_path / "data"
    manifest = prepare_data(source, out, seed=1, options=DataOptions(**options))
    written = (out / name for name in ("train.jsonl", "test.jsonl"))
    lines = [line for path in written for line in path.read_text("utf-8").splitlines()]
    return manifest, [json.loads(line) for line in lines]


def test_a_preference_keeps_its_columns_and_becomes_a_chat(tmp_path):
    rows = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad", "tags": "t"} for n in range(5)]
    manifest, written = prepare(tmp_path, rows)
    assert manifest.rejected == {}
    assert manifest.has_preferences
    assert sorted(row["prompt"] for row in written) == [row["prompt"] for row in rows]
    for row in written:
        assert row["messages"] == [{"role": "user", "content": row["prompt"]}, GOOD]
        assert (row["chosen"], row["rejected"], row["tags"]) == ("good", "bad", "t")


def test_wrong_preferences_are_rejected_with_the_reason(tmp_path):
    good = [{"prompt": f"q{n}", "chosen": "good", "rejected": "bad"} for n in range(3)]
    wrong = [
        {"prompt": "q", "chosen": "same", "rejected": " same\n"},
        {"prompt": "q", "chosen": "good", "rejected": ""},
        {"prompt": "", "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": 1, "rejected": "bad"},
        {"prompt": "q", "chosen": "good"},
    ]
    manifest, written = prepare(tmp_path, [*good, *wrong])
    assert len(written) == 3
    reasons = {"equal answers": 1, "empty content": 2, "no messages": 2}
    assert {name: manifest.rejected[name] for name in reasons} == reasons
    with pytest.raises(OpsError, match="`chosen` and `rejected` are equal"):
        prepare(tmp_path, [*good, wrong[0]], strict=True)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_lists_of_messages_are_read(tmp_path, row):
    assert as_chat(row) == {**row, "messages": [USER, GOOD]}
    changed = [{**row, "prompt": [{**USER, "content": f"q{n}"}]} for n in range(3)]
    rows = [{**change, "chosen": [GOOD], "rejected": [BAD]} for change in changed]
    _, written = prepare(tmp_path, rows)
    assert {row["messages"][0]["content"] for row in written} == {"q0", "q1", "q2"}


def test_the_shipped_preferences_are_those_of_the_script_and_pass_all_checks(tmp_path):
    rows = [json.loads(line) for line in PREFERENCES.read_text(encoding="utf-8").splitlines()]
    assert rows == make_rows()
    assert len({row["prompt"] for row in rows}) == len(rows) == 3 * ROWS_PER_TAG >= 300
    manifest, _ = prepare(tmp_path, rows, strict=True)
    assert manifest.rejected == {}
