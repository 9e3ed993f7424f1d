"""The plan of a sweep says what it is based on, and counts only what is still to do."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.sweeps.config import load_sweep
from phi3_ops.sweeps.plan import estimate, make_plan
from phi3_ops.sweeps.runner import SweepRunner

PRICES = {"cells3": {"prompt": 1, "completion": 2}}


@pytest.fixture
def plan(write_sweep, tmp_path):
    """Return a function that makes the plan of a sweep."""

    def make(**fields):
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        return make_plan(load_sweep(write_sweep(**fields)), staging)

    return make


@pytest.fixture
def cells3(server):
    """A connection that no run has used."""
    from phi3_ops.pf.connections import delete_connection, save_connection

    save_connection("cells3", {"endpoint": server.url, "contract": "chat"}, "key")
    yield "cells3"
    delete_connection("cells3")


def test_without_an_earlier_run_the_data_are_the_basis(cells3, plan):
    made = plan(connections=[cells3], prices=PRICES, questions=range(10, 26))
    first, _ = estimate(made, 4)
    assert (first.calls, first.answered, first.judge_calls) == (16, 0, 0)
    assert first.prompt_tokens == 8  # 16 questions of two bytes
    assert first.completion_tokens == 28  # 16 references of seven bytes as JSON
    assert first.cost == pytest.approx((8 + 2 * 28) / 1000)
    assert first.seconds is None
    assert first.basis == "lengths of the data; the time is unknown"


def test_an_earlier_run_through_the_connection_is_the_basis(server, plan, tmp_path):
    made = plan(prompts={"plain": None, "eleven": {"inputs": {"answer.system_prompt": "11"}}})
    SweepRunner(made, tmp_path / "kept", command="", in_flight=4).run()
    prompts = {"plain": None, "ten": {"inputs": {"answer.system_prompt": "10"}}}
    first, second = estimate(plan(prompts=prompts), 4)
    assert (first.answered, first.calls) == (12, 0)
    assert first.basis == "earlier runs: every line has run"
    assert (second.answered, second.calls) == (0, 12)
    assert (second.prompt_tokens, second.completion_tokens) == (120, 60)
    assert second.seconds is not None and second.basis.startswith("tokens and time of trial-")


def test_the_calls_of_a_judge_are_counted(server, plan):
    judge = {"flow": "judge", "connection": "cells", "columns": {"context": "none"}}
    made = plan(evaluate=[{"flow": "eval"}, judge], metrics=["exact_match", "correctness"])
    assert {each.judge_calls for each in estimate(made, 4)} == {12}


def test_empty_data_are_refused(server, plan, write_sweep):
    with pytest.raises(OpsError, match="data.jsonl is empty"):
        plan(questions=[])
    write_sweep()
    with pytest.raises(OpsError, match="none.jsonl does not exist"):
        plan(data="none.jsonl")


def test_data_that_is_not_a_regular_file_is_refused(plan):
    with pytest.raises(OpsError, match="/dev/zero is not a regular file"):
        plan(data="/dev/zero")


def test_a_value_of_the_wrong_type_is_refused(server, plan):
    with pytest.raises(OpsError, match="max_new_tokens: 'abc' is not of the type int"):
        plan(parameters={"max_new_tokens": [8, "abc"]})
