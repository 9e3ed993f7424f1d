"""Which lines of runs give pairs."""

import json

import pytest

from chats import write_rows
from phi3_ops.corrections.from_runs import RunSource, examples_of_run
from phi3_ops.errors import OpsError


def rows_of(tmp_path, name, *rows):
    return write_rows(
        tmp_path / name, [{"line_number": n, **row} for n, row in enumerate(rows) if row]
    )


@pytest.fixture
def data(tmp_path):
    rows = [
        {"question": "one?", "ground_truth": "The One."},
        {"question": "two?", "ground_truth": "Two."},
        {"question": "three?"},
        {"question": "four?", "ground_truth": "Four."},
        {"text": "five?"},
    ]
    return write_rows(tmp_path / "data.jsonl", rows)


def made_from(*source):
    made = examples_of_run(RunSource(*source))
    assert made.used + made.unused.total() == made.records
    return made


def pairs(made):
    return [(e.question, e.chosen, e.rejected) for e in made.examples]


def test_the_reference_is_better_than_an_answer_that_differs(tmp_path, data):
    answers = [{"answer": "one"}, {"answer": "Three."}, {"answer": "x"}, None, {"answer": "y"}]
    run = rows_of(tmp_path, "run.jsonl", *answers)
    made = made_from(str(run), None, data)
    assert pairs(made) == [("two?", "Two.", "Three.")]
    assert made.unused == {
        **{"answer equal to the reference": 1, "no reference": 1},
        **{"failed line": 1, "no question": 1},
    }
    origin = made.examples[0].origin.to_json()
    assert origin == {
        **{"source": "run", "name": str(run), "record": "1", "basis": "lost line"},
        "better": "reference",
    }


def test_lost_lines_of_a_comparison(tmp_path, data):
    def run(name, *scores):
        rows = [s and {"answer": f"{name} {n}", "token_f1": s} for n, s in enumerate(scores)]
        return str(rows_of(tmp_path, f"{name}.jsonl", *rows))

    mine, other = run("mine", 0.2, 0.9, 0.1, None, 0.1), run("other", 0.5, 0.9, 0.3, 0.5, 0.5)
    made = made_from(mine, other, data)
    assert pairs(made) == [("one?", "The One.", "mine 0"), ("three?", "other 2", "mine 2")]
    assert made.unused == {"not lost": 1, "failed line": 1, "no question": 1}
    assert made.examples[1].origin.facts == {"better": "run", "against": other}
    with pytest.raises(OpsError, match="no score 'bleu' in common.*They have: token_f1"):
        made_from(mine, other, data, "bleu")


def test_a_lower_score_can_be_better(tmp_path, data, monkeypatch):
    low = [{"answer": "x", "loss": 0.5}, *[None] * 4]
    high = [{"answer": "y", "loss": 0.9}, *[None] * 4]
    first, second = rows_of(tmp_path, "a.jsonl", *low), rows_of(tmp_path, "b.jsonl", *high)
    assert pairs(made_from(str(first), str(second), data)) == [("one?", "The One.", "x")]

    from phi3_ops.comparison.thresholds import Metric, Thresholds

    lower = Thresholds(metrics={"loss": Metric(higher_is_better=False, range=(0, 1))})
    monkeypatch.setattr("phi3_ops.comparison.load_thresholds", lambda file: lower)
    assert pairs(made_from(str(first), str(second), data)) == []
    assert pairs(made_from(str(second), str(first), data)) == [("one?", "The One.", "y")]


def test_the_history_of_a_line_is_part_of_the_prompt(tmp_path):
    history = [{"inputs": {"question": "hi?"}, "outputs": {"answer": "ho."}}]
    messages = [{"role": "user", "content": "hi?"}, {"role": "assistant", "content": "ho."}]
    last = {"role": "user", "content": "and?"}
    rows = [
        {"question": "and?", "ground_truth": "Yes.", "chat_history": history},
        {"messages": [*messages, last], "ground_truth": "Yes."},
    ]
    data = write_rows(tmp_path / "data.jsonl", rows)
    run = rows_of(tmp_path, "run.jsonl", {"answer": "No."}, {"answer": "No."})
    for example in made_from(str(run), None, data).examples:
        assert json.loads(json.dumps(example.to_json()))["prompt"] == [*messages, last]
