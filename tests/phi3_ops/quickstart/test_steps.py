"""The folders and connections of a quickstart, and the call of a flow."""

from __future__ import annotations

import pytest
from rich.console import Console

from phi3_ops.errors import OpsError
from phi3_ops.quickstart.steps import STEPS, QuickstartJob, QuickstartOptions, flow_test


def make_job(**options):
    return QuickstartJob(QuickstartOptions(**options), Console(quiet=True))


def test_the_steps_have_the_names_of_the_summary():
    assert [name for name, _, _ in STEPS] == [
        "data",
        "finetune",
        "before",
        "serve",
        "chat",
        "after",
    ]


def test_the_untrained_model_is_the_given_folder_or_the_one_made_from_scratch(tmp_path):
    assert make_job(workdir=tmp_path).base_model is None
    base = tmp_path / "model" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    assert make_job(workdir=tmp_path).base_model == base
    assert make_job(workdir=tmp_path, model=str(base)).base_model == base
    assert make_job(workdir=tmp_path, model="owner/name").base_model is None


def test_each_model_has_a_connection(tmp_path):
    job = make_job(workdir=tmp_path)
    assert (job.connection("tuned"), job.connection("base")) == ("phi3", "phi3-base")


def test_a_missing_base_model_skips_the_step(tmp_path):
    step = {name: step for name, _, step in STEPS}["before"]
    assert step(make_job(workdir=tmp_path)).startswith("skipped:")


def test_a_failing_flow_is_named(tmp_path):
    with pytest.raises(OpsError, match="`pf flow test` of nowhere failed: ."):
        flow_test(tmp_path / "nowhere", {"question": "x"})
