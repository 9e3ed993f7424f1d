"""The folders and connections of a quickstart, and the call of a flow."""

from __future__ import annotations

import pytest
from rich.console import Console

from phi3_ops.errors import OpsError
from phi3_ops.quickstart.model_choice import choose_model
from phi3_ops.quickstart.steps import (
    STEPS,
    QuickstartJob,
    QuickstartOptions,
    flow_test,
    steps_of,
)

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


@pytest.mark.parametrize(("longest", "tokens"), [(0, 32), (10, 32), (90, 45), (1000, 128)], ids=str)
def test_both_models_may_answer_as_long_as_the_longest_reference(longest, tokens):
    job = make_job()
    job.questions = [{"kind": "trained", "ground_truth": "a" * size} for size in (0, longest)]
    assert job.answer_tokens == tokens and job.asked("trained") == 2


def test_each_model_has_a_connection(tmp_path):
    job = make_job(workdir=tmp_path)
    assert (job.connection("tuned"), job.connection("base")) == ("phi3", "phi3-base")


def test_a_missing_base_model_skips_the_step(tmp_path):
    step = {name: step for name, _, step in STEPS}["before"]
    assert step(make_job(workdir=tmp_path)).startswith("skipped:")


def test_a_failing_flow_is_named(tmp_path):
    with pytest.raises(OpsError, match="`pf flow test` of nowhere failed: ."):
        flow_test(tmp_path / "nowhere", {"question": "x"})
