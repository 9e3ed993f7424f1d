"""smollm2 as the judge of flows/judge: how many verdicts can be parsed, and whether they are right.

The label of each answer follows from a rule: the reference itself is right, and the reference of another
question about the same topic is wrong. docs/judging.md contains the measured figures.
"""

from __future__ import annotations

import json
from collections import Counter
from statistics import mean

import pytest

from phi3_ops import paths
from phi3_ops.runs.batch import load_batch
from phi3_tools.evaluation import summarise
from phi3_tools.evaluation.readings import SCORE, read_verdict
from processes import phi3

pytestmark = pytest.mark.slow

EVERY = 6  # of the 120 sample facts
RIGHT, WRONG = "right", "wrong"
PARSED, MARGIN = (
    0.0,
    0.1,
)  # share of the verdicts that could be parsed, as docs/judging.md states it


def labelled_rows():
    """Return the rows of the data file, with the label of each answer."""
    facts = {}
    for line in paths.SAMPLE_DATA.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        facts.setdefault(row["fact"], row)
    rows = []
    for row in list(facts.values())[::EVERY]:
        reference = row["messages"][-1]["content"]
        wrong = next(
            other["messages"][-1]["content"]
            for fact, other in facts.items()
            if fact != row["fact"] and other["topic"] == row["topic"]
        )
        for label, answer in ((RIGHT, reference), (WRONG, wrong)):
            fields = {"question": row["prompt"], "answer": answer, "ground_truth": reference}
            rows.append({**fields, "context": "", "label": label})
    return rows


@pytest.fixture(scope="module")
def verdicts(connection, tmp_path_factory):
    """The labels and the verdicts on correctness."""
    rows = labelled_rows()
    folder = tmp_path_factory.mktemp("judge")
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("--connection", connection, "--in-flight", 4, "--name", "smollm2-judge")
    done = phi3(
        "run", "--flow", "judge", "--data", data, *words, "--column-mapping", "judge_rubrics=correctness",
        cwd=folder, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    answers = load_batch(done.stdout.partition(":")[0]).answers
    assert sorted(answers) == list(range(len(rows)))
    return [(row["label"], answers[line]) for line, row in enumerate(rows)]


def test_the_rate_of_parsed_verdicts_is_as_documented(verdicts):
    print_table(verdicts)
    scored = [answer for _, answer in verdicts if answer["correctness"] is not None]
    assert abs(len(scored) / len(verdicts) - PARSED) <= MARGIN


def test_an_unparsed_verdict_is_unscored_and_keeps_the_texts(verdicts):
    for _, answer in verdicts:
        verdict = answer["verdicts"]["correctness"]
        assert answer["correctness"] == verdict["score"]
        assert (verdict["score"] is not None) == (verdict["status"] == "scored")
        if verdict["status"] != "scored":
            assert verdict["status"] == "unparsed"
            first, second = verdict["samples"][0]["texts"]
            assert read_verdict(first, SCORE).value is read_verdict(second, SCORE).value is None


def test_the_metrics_count_unparsed_verdicts_and_give_bounds(verdicts):
    metrics = summarise([answer["verdicts"] for _, answer in verdicts])
    scores = [answer["correctness"] for _, answer in verdicts if answer["correctness"] is not None]
    unparsed = len(verdicts) - len(scores)
    assert (metrics["correctness_scored"], metrics["correctness_unparsed"]) == (
        len(scores),
        unparsed,
    )
    assert metrics.get("correctness") == (pytest.approx(mean(scores)) if scores else None)
    for bound, score in (("correctness_low", 1), ("correctness_high", 5)):
        assert metrics[bound] == pytest.approx((sum(scores) + unparsed * score) / len(verdicts))


def print_table(verdicts):
    """Print the rows of the table in docs/judging.md."""
    for label in (RIGHT, WRONG):
        scores = Counter(answer["correctness"] for each, answer in verdicts if each == label)
        cells = [str(scores[score]) for score in (1.0, 2.0, 3.0, 4.0, 5.0, None)]
        print(f"| {label} | {' | '.join(cells)} |")
