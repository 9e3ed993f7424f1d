"""Run jobs that ask a model, several at once, and stop when the budget or the endpoint is exhausted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from phi3_tools import (
    BadRequestError,
    InvalidAnswerError,
    Phi3Error,
    PromptTooLongError,
    RequestTooLargeError,
)
from phi3_tools.client import CallGroup

from .teacher import BudgetReachedError

MAX_FAILURES_IN_A_ROW = 5  # then the endpoint is taken to be down, and nothing more is asked
# Errors of one request, to which the endpoint answered: other requests may succeed.
_OF_ONE_REQUEST = (
    BadRequestError,
    InvalidAnswerError,
    PromptTooLongError,
    RequestTooLargeError,
)

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass
class JobResults(Generic[Key, Result]):
    """What became of jobs.

    Attributes:
        done: key -> result.
        failed: key -> error.
        misfits: number of the failed jobs whose answers did not fit the schema.
        not_asked: the keys of the other jobs.
        budget_reached: whether jobs were not asked because of the budget.
    """

    done: dict[Key, Result] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)
    misfits: int = 0
    not_asked: list[Key] = field(default_factory=list)
    budget_reached: bool = False


def run_jobs(
    jobs: Mapping[Key, Callable[[], Result]],
    in_flight: int,
    on_ended: Callable[[int], None] = lambda ended: None,
) -> JobResults[Key, Result]:
    """Run jobs in threads.

    Args:
        jobs: key -> job. An error of the endpoint is recorded; any other error ends all jobs.
        in_flight: maximum number of jobs that run at once.
        on_ended: called in this thread with the number of jobs that have ended.
    """
    results: JobResults[Key, Result] = JobResults()
    waiting = list(jobs)[::-1]
    running: dict[Future[Result], Key] = {}
    failures_in_a_row = 0
    calls = CallGroup()
    threads = ThreadPoolExecutor(in_flight, thread_name_prefix="teacher")
    try:
        while True:
            is_open = not results.budget_reached and failures_in_a_row < MAX_FAILURES_IN_A_ROW
            while waiting and is_open and len(running) < in_flight:
                key = waiting.pop()
                running[threads.submit(_collected, calls, jobs[key])] = key
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                try:
                    results.done[key] = future.result()
                    failures_in_a_row = 0
                except BudgetReachedError:
                    results.budget_reached = True
                    results.not_asked.append(key)
                except Phi3Error as error:
                    results.failed[key] = error.what
                    results.misfits += isinstance(error, InvalidAnswerError)
                    failures_in_a_row += not isinstance(error, _OF_ONE_REQUEST)
            on_ended(len(results.done) + len(results.failed))
    except BaseException:
        calls.cancel()  # Ctrl-C does not wait for the answers
        raise
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
    results.not_asked += reversed(waiting)
    return results


def _collected(calls: CallGroup, job: Callable[[], Result]) -> Result:
    with calls.collect():
        return job()
