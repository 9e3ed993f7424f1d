"""Jobs that ask a model: failures, the budget, and when nothing more is asked."""

import threading

import pytest

from phi3_ops.documents.jobs import MAX_FAILURES_IN_A_ROW, run_jobs
from phi3_ops.documents.teacher import BudgetReachedError
from phi3_tools import BadRequestError, InvalidAnswerError, ServerError
from phi3_tools.client import groups
from polling import wait_until


def job(result):
    def run():
        if isinstance(result, Exception):
            raise result
        return result

    return run


def run(*results, in_flight=1):
    return run_jobs({number: job(result) for number, result in enumerate(results)}, in_flight)


def test_a_failure_is_recorded_and_the_rest_goes_on():
    ended = []
    jobs = {"a": job(1), "b": job(ServerError("it failed")), "c": job(3)}
    results = run_jobs(jobs, 2, ended.append)
    assert results.done == {"a": 1, "c": 3}
    assert results.failed == {"b": "ServerError: it failed"}
    assert (results.not_asked, ended[-1]) == ([], 3)


def test_nothing_more_is_asked_after_many_failures_in_a_row():
    failure = ServerError("down")
    results = run(1, *[failure] * (MAX_FAILURES_IN_A_ROW - 1), 2, *[failure] * 20)
    assert len(results.failed) == 2 * MAX_FAILURES_IN_A_ROW - 1
    assert len(results.done) == 2
    assert len(results.not_asked) == 26 - 2 - len(results.failed)


@pytest.mark.parametrize("error", [BadRequestError("filtered"), InvalidAnswerError("no JSON")])
def test_an_error_of_one_request_does_not_count_for_the_endpoint(error):
    refused = [error] * (MAX_FAILURES_IN_A_ROW + 1)
    results = run(*refused, "answer")
    assert len(results.failed) == len(refused)
    assert (list(results.done.values()), results.not_asked) == (["answer"], [])


def test_the_budget_ends_it_without_a_failure():
    results = run(1, BudgetReachedError(), 3)
    assert (results.done, results.not_asked) == ({0: 1}, [1, 2])
    assert results.budget_reached and not results.failed


def test_an_error_of_the_program_is_raised():
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError(), 2)


def test_ctrl_c_ends_the_calls_in_flight():
    ended, started = [], threading.Event()

    def waits():
        group = groups._current.get()
        started.set()
        wait_until(lambda: group.is_cancelled, timeout_s=20)
        ended.append("waits")

    def interrupt(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs({"waits": waits, "quick": lambda: started.wait(20)}, 2, interrupt)
    assert ended == ["waits"]


def test_no_jobs():
    assert run().done == {}
