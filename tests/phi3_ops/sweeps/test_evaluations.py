"""The flows that score: their scores, columns and connections are checked before the first call."""

from __future__ import annotations

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.pf.connections import save_connection
from phi3_ops.sweeps.config import load_sweep
from phi3_ops.sweeps.evaluations import load_evaluations, merged_thresholds

COLUMNS = ("question", "ground_truth")
ANSWERS = {"plain": ("answer",)}


@pytest.fixture
def evaluations(write_sweep):
    """Return a function that loads the evaluations of a sweep."""

    def load(**fields):
        return load_evaluations(load_sweep(write_sweep(**fields)), COLUMNS, ANSWERS)

    return load


def test_a_judge_beside_the_metrics(server, evaluations):
    judge = {"flow": "judge", "connection": "cells2", "columns": {"context": "none"}}
    both = evaluations(evaluate=[{"flow": "eval"}, judge], metrics=["token_f1", "correctness"])
    assert [each.calls_per_line for each in both] == [0, 1]
    assert both[1].connections == {"judge": {"connection": "cells2"}}
    assert "verdicts" not in both[1].metrics  # an object is not a score
    metrics = merged_thresholds(both).metrics
    assert metrics["correctness"].range and metrics["token_f1"].range == (0, 1)


def test_the_title_changes_with_the_evaluation(server, evaluations):
    judge = {"flow": "judge", "columns": {"context": "none"}}
    titles = {
        evaluations(evaluate=[{**judge, **more}], metrics=["correctness"])[0].title("asked")
        for more in ({"connection": "cells"}, {"connection": "cells2"})
    }
    assert len(titles) == 2 and all(title.startswith("asked-judge-") for title in titles)


def test_the_title_changes_with_the_endpoint_of_the_judge(server, evaluations):
    judge = {"flow": "judge", "columns": {"context": "none"}, "connection": "cells2"}
    titles = set()
    for url in (server.url, f"{server.url}/other"):
        save_connection("cells2", {"endpoint": url, "contract": "chat"}, "key")
        for _ in range(2):
            loaded = evaluations(evaluate=[judge], metrics=["correctness"])
            titles.add(loaded[0].title("asked"))
    assert len(titles) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"metrics": ["exact_mach"]},
            "no evaluation has the score 'exact_mach'.*; did you mean exact_",
        ),
        ({"metrics": ["length"]}, "metrics: 'length' is neither better nor worse"),
        ({"evaluate": [{"flow": "evil"}]}, "evil is not a flow"),
        (
            {"evaluate": [{"flow": "judge", "connection": "none"}], "metrics": ["correctness"]},
            "the connection 'none' does not exist",
        ),
        (
            {"evaluate": [{"flow": "judge", "connection": "cells"}], "metrics": ["correctness"]},
            "the input 'context' of .*judge has no column. Set it in `evaluate.0.columns`; the prompt "
            "plain has the outputs answer.",
        ),
        (
            {"evaluate": [{"columns": {"anwser": "x"}}]},
            "eval has no input 'anwser'. Set it in `evaluate.0.columns`",
        ),
    ],
)
def test_what_does_not_exist_is_named(server, evaluations, fields, message):
    with pytest.raises(OpsError, match=message):
        evaluations(**fields)
