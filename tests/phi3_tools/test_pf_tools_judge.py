"""The judge's tools inside the real promptflow."""

from __future__ import annotations

import itertools

import pytest
from promptflow.core._connection import CustomConnection
from promptflow.exceptions import SystemErrorException, UserErrorException

from judge_endpoint import KEY, Crash
from phi3_tools import pf_calls, pf_tools
from phi3_tools.evaluation.rubrics import RUBRICS

LINE = {"question": "What is it?", "answer": "It is fifty-four.", "ground_truth": "fifty-six"}
PAIR = {**LINE, "answer": "It is fifty-six.", "answer_b": "It is fifty-four."}


@pytest.fixture
def connection(judge_server):
    def make(path="/score", **configs):
        return CustomConnection(
            {"key": KEY}, {"endpoint": judge_server.url(path), **configs}, name="j"
        )

    yield make
    pf_calls._clients.close()


def judge_answering(*texts):
    """Return a judge that gives these answers in turn, and then the last one again."""
    answers = itertools.chain(texts, itertools.repeat(texts[-1]))
    return lambda messages: next(answers)


def sent_inputs(judge_server):
    return [body["input_data"] for body in judge_server.requests]


def test_the_tool_grades_by_every_selected_rubric(judge_server, connection):
    result = pf_tools.phi3_judge(
        connection(), **LINE, context="", rubrics="correctness, groundedness,fluency"
    )
    assert list(result["scores"]) == list(RUBRICS)
    assert list(result["verdicts"]) == ["correctness", "groundedness", "fluency"]
    assert result["scores"]["correctness"] == 1.0
    assert result["scores"]["groundedness"] is result["scores"]["relevance"] is None
    assert "logprobs" not in str(judge_server.requests)


def test_the_tool_accepts_numbers_and_null(judge_server, connection):
    result = pf_tools.phi3_judge(connection(), 7, 56, 56, None, rubrics="correctness,groundedness")
    assert result["scores"]["correctness"] == 5.0
    assert result["verdicts"]["groundedness"]["status"] == "skipped"


def test_the_tool_requests_logprobs_from_openai_endpoints(judge_server, connection):
    judge_server.digits = {"1": 0.5, "2": 0.5}
    for logprobs, score in (("auto", 1.5), ("off", 1.0)):
        result = pf_tools.phi3_judge(
            connection("/v1"), **LINE, rubrics="correctness", logprobs=logprobs
        )
        assert result["scores"]["correctness"] == pytest.approx(score)


def test_the_tool_remembers_that_logprobs_are_refused(judge_server, connection):
    judge_server.refuses = {"logprobs"}
    for _ in range(3):
        result = pf_tools.phi3_judge(connection("/v1"), **LINE, rubrics="correctness")
        assert result["scores"]["correctness"] == 1.0
    assert ["logprobs" in body for body in judge_server.requests] == [True, False, False, False]


def test_the_pair_tool(judge_server, connection):
    result = pf_tools.phi3_judge_pair(connection(), **PAIR)
    assert (result["winner"], result["agreed"], result["calls"]) == ("answer", True, 2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"rubrics": "correctnes"}, "the rubric 'correctnes' does not exist"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 3, "temperature": 0.0}, "temperature is 0"),
        ({"samples": 3, "temperature": 3.0}, "temperature is 3.0, but must be"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"logprobs": "yes"}, "logprobs is 'yes', but must be auto or off"),
        ({"answer": "x" * 100_000}, "PromptTooLongError"),
    ],
)
def test_wrong_inputs_are_user_errors(judge_server, connection, inputs, message):
    with pytest.raises(UserErrorException, match=message):
        pf_tools.phi3_judge(connection(), **{**LINE, **inputs})
    assert judge_server.requests == []


def test_a_comparison_uses_one_rubric(judge_server, connection):
    with pytest.raises(UserErrorException, match="uses one rubric"):
        pf_tools.phi3_judge_pair(connection(), **PAIR, rubric="fluency,coherence")


def test_the_second_attempt_is_sent_completely(judge_server, connection):
    """If it were fitted to the window, the answer to score would be missing."""
    judge_server.judge = judge_answering("Well.", '{"score": 2}')
    long = {**LINE, "answer": "word " * 700}
    result = pf_tools.phi3_judge(connection(), **long, rubrics="correctness", context_window=2048)
    assert result["scores"]["correctness"] == 2.0
    assert len(sent_inputs(judge_server)[1]["input_string"]) == 3


def test_the_endpoints_failure_fails_the_line(judge_server, connection):
    def crash(messages):
        raise Crash("no memory")

    judge_server.judge = crash
    with pytest.raises(SystemErrorException, match="ServerError: .*no memory"):
        pf_tools.phi3_judge(connection(max_attempts="1"), **LINE)


def test_the_judge_respects_the_time_limit_of_a_line(judge_server, connection, monkeypatch):
    monkeypatch.setattr(pf_calls, "JUDGE_DEADLINE_S", 0.0)
    with pytest.raises(SystemErrorException, match="EndpointTimeoutError"):
        pf_tools.phi3_judge(connection(), **LINE)
    assert judge_server.requests == []
