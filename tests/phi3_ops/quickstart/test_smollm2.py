"""The quickstart with the real model, on few rows: it runs to its end, and remembers what it measured."""

from __future__ import annotations

import json

import pytest

from phi3_ops import paths
from phi3_ops.endpoint.registration import running_endpoints
from processes import phi3, processes_naming
from smollm2 import SMOLLM2_CACHE
from stores import make_store

pytestmark = pytest.mark.slow
FACTS, QUESTIONS = 12, 3


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    home = make_store(tmp_path_factory.mktemp("home"))
    return {"PF_HOME_DIRECTORY": str(home), "PHI3_CACHE": str(SMOLLM2_CACHE)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The rows of the first facts of the shipped data."""
    lines = paths.SAMPLE_DATA.read_text(encoding="utf-8").splitlines()
    facts = list(dict.fromkeys(json.loads(line)["fact"] for line in lines))[:FACTS]
    file = tmp_path_factory.mktemp("data") / "facts.jsonl"
    chosen = [line for line in lines if json.loads(line)["fact"] in facts]
    file.write_text("\n".join(chosen), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("work") / "phi3"


@pytest.fixture(scope="module")
def done(smollm2_folder, data, workdir, env):
    words = ("--data", data, "--epochs", 1, "--questions", QUESTIONS)
    yield phi3("quickstart", "--workdir", workdir, *words, env=env, timeout=1200)
    phi3("quickstart", "--remove", "--workdir", workdir, env=env)


@pytest.fixture
def summary(done, workdir):
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workdir / "summary.json").read_text())


def test_the_default_is_smollm2_with_its_recipe(summary, smollm2_folder):
    assert summary["base"] == str(smollm2_folder)
    assert summary["recipe"] == "smollm2-cpu"
    assert "model" in summary["seconds"]


def test_both_models_get_the_same_questions(summary):
    asked = [count["asked"] for count in summary["questions"].values()]
    assert max(asked) == QUESTIONS
    for which in ("before", "after"):
        assert summary["lines"][which] == {"lines": sum(asked), "failed": 0}
        assert set(summary["exact_match"][which]) == set(summary["questions"])
    assert 32 <= summary["answer_tokens"] <= 128


def test_what_the_model_forgot_is_measured(done, summary):
    loss = summary["general_loss"]
    assert loss["rows"] == 40 and 0 < loss["before"] < 6 and 0 < loss["after"] < 6
    assert "general   loss on 40 chats that no training row resembles: " in done.stdout


def test_base_and_fine_tuned_model_and_the_page_are_served(done, summary, workdir):
    assert {running.name for running in running_endpoints(workdir)} == {"base", "tuned", "page"}
    last = done.stdout.strip().splitlines()[-1].strip()
    assert (
        last
        == f"open      {summary['page']} to chat with the fine-tuned model, beside the base model"
    )


def test_remove_keeps_the_shared_model_and_names_it(summary, workdir, env, smollm2_folder):
    removed = phi3("quickstart", "--remove", "--workdir", workdir, env=env)
    assert removed.returncode == 0, removed.stderr
    assert "`phi3 models --remove smollm2` deletes it" in removed.stdout
    assert "stopped the chat page 'page'" in removed.stdout
    assert (smollm2_folder / "config.json").is_file()
    assert not workdir.exists() and not processes_naming(workdir)
