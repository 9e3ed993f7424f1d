"""The folders and connections of a quickstart."""

from __future__ import annotations

import pytest
from rich.console import Console

from phi3_ops.quickstart import ask, steps
from phi3_ops.quickstart.model_choice import choose_model
from phi3_ops.quickstart.results import ModelEvaluation
from phi3_ops.quickstart.steps import (
    STEPS,
    QuickstartJob,
    QuickstartOptions,
    steps_of,
)
from phi3_tools.evaluation import Mean

ALL_STEPS = ["data", "model", "finetune", "before", "serve", "chat", "after", "page"]


def make_job(model="tiny", base=None, **options):
    choice = choose_model(model, "lora" if "/" in model else None, None)
    return QuickstartJob(QuickstartOptions(**options), Console(quiet=True), choice, base=base)


@pytest.mark.parametrize(
    ("model", "keep_endpoint", "unneeded"),
    [
        ("smollm2", True, set()),
        ("tiny", True, {"model"}),
        ("smollm2", False, {"page"}),
    ],
)
def test_the_steps_have_the_names_of_the_summary(model, keep_endpoint, unneeded):
    steps = steps_of(make_job(model, keep_endpoint=keep_endpoint))
    assert [name for name, _, _ in steps] == [name for name in ALL_STEPS if name not in unneeded]


def test_the_base_model_is_the_given_folder_or_the_one_made_from_scratch(tmp_path):
    assert make_job(workdir=tmp_path).base_model is None
    base = tmp_path / "model" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    assert make_job(workdir=tmp_path).base_model == base
    other = tmp_path / "other"
    assert make_job(workdir=tmp_path, base=other).base_model is None
    other.mkdir()
    (other / "config.json").write_text("{}")
    assert make_job(workdir=tmp_path, base=other).base_model == other
    assert make_job("owner/name", workdir=tmp_path / "new").base_model is None


@pytest.mark.parametrize(("longest", "tokens"), [(0, 32), (10, 32), (90, 45), (1000, 256)], ids=str)
def test_both_models_may_answer_as_long_as_the_longest_reference(longest, tokens):
    job = make_job()
    job.questions = [{"kind": "trained", "ground_truth": "a" * size} for size in (0, longest)]
    assert job.answer_tokens == tokens and job.asked("trained") == 2


COMPANY = """Question,Answer
Who makes kettles?,Brinlow does.
Where?,In Harrowmere.
"""


def test_own_data_is_described_and_its_first_row_is_asked(tmp_path, monkeypatch):
    source = tmp_path / "mine.csv"
    source.write_text(COMPANY + "".join(f"How many of {n}?,It is {n}.\n" for n in range(10)))
    job = make_job(workdir=tmp_path / "work", source=source)
    printed = step_named("data")(job)
    assert printed.startswith("10 rows to train, 2 to test, in ")
    assert printed.endswith("; columns Question → Answer") and job.groups == "prompt"
    assert job.notes == [
        "10 rows to train and 2 to test say little: give at least 40 rows, or several "
        "phrasings of each question"
    ]
    answers = {"Who makes kettles?": "Brinlow does."}
    monkeypatch.setattr(
        ask, "run_once", lambda flow, inputs: {"answer": answers[inputs["input_data"]]}
    )
    assert step_named("chat")(job) == "“Who makes kettles?” → “Brinlow does.”"
    answers["Who makes kettles?"] = "Nobody."
    assert step_named("chat")(job).endswith("“Nobody.” (the data says “Brinlow does.”)")


@pytest.mark.parametrize(("exact", "f1", "is_noted"), [(0.1, 0.2, True), (0.6, 0.7, False)])
def test_a_training_that_was_too_short_is_named(tmp_path, monkeypatch, exact, f1, is_noted):
    means = [{"trained": Mean(mean=mean, stderr=0.0, n=9)} for mean in (exact, f1)]
    evaluation = ModelEvaluation("a", "b", 9, 0, dict(zip(("exact_match", "token_f1"), means)))

    def evaluate(job, which):
        job.evaluations[which] = evaluation
        return ""

    monkeypatch.setattr(steps, "_evaluate", evaluate)
    job = make_job(workdir=tmp_path)
    step_named("after")(job)
    assert bool(job.notes) == is_noted
    assert not is_noted or job.notes[0].startswith("the model answers only 10% of the questions")


def step_named(name):
    return {each: step for each, _, step in STEPS}[name]


def test_each_model_has_a_connection(tmp_path):
    job = make_job(workdir=tmp_path)
    assert (job.connection("tuned"), job.connection("base")) == ("phi3", "phi3-base")


def test_a_missing_base_model_skips_the_step(tmp_path):
    assert step_named("before")(make_job(workdir=tmp_path)).startswith("skipped:")
