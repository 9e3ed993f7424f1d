"""A batch stops after equal failures that no retry mends, and says how to go on."""

from __future__ import annotations

import socket

import pytest

from echo_endpoint import KEY
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.pf.connections import save_connection
from phi3_ops.pf.pace import ConcurrencyLimit
from phi3_ops.pf.run_types import PHI3, PROMPTFLOW
from phi3_ops.runs.repeated_failures import MAX_FAILURES, RepeatedFailures, is_lasting
from phi3_ops.runs.resume import resume_run
from phi3_tools import (
    AuthenticationError,
    BadRequestError,
    DeploymentNotFoundError,
    EndpointUnreachableError,
)
from phi3_tools.client.retry import ATTEMPTS

QA = paths.FLOWS / "qa"


@pytest.fixture
def failures():
    return RepeatedFailures(ConcurrencyLimit(4))


def fail(failures, kind=AuthenticationError, times=MAX_FAILURES, status=401):
    for _ in range(times):
        failures.on_failed(kind("refused", status=status))


def test_equal_failures_stop_the_batch(failures):
    fail(failures, times=MAX_FAILURES - 1)
    failures.on_line(False)
    assert failures.error is None
    fail(failures, times=1)
    assert isinstance(failures.error, AuthenticationError)
    assert failures._limit.stopped


def test_a_completed_line_starts_the_count_anew(failures):
    fail(failures, times=MAX_FAILURES - 1)
    failures.on_line(True)
    fail(failures, times=MAX_FAILURES - 1)
    assert failures.error is None and not failures._limit.stopped


def test_different_failures_are_counted_separately(failures):
    fail(failures, times=MAX_FAILURES - 1)
    fail(failures, DeploymentNotFoundError, MAX_FAILURES - 1, 404)
    assert failures.error is None


def test_failures_of_single_lines_do_not_stop_the_batch(failures):
    fail(failures, BadRequestError, 100, 400)
    assert failures.error is None


def test_a_failure_after_a_ctrl_c_is_not_the_reason_of_the_stop(failures):
    failures._limit.stop()
    fail(failures)
    assert failures.error is None


@pytest.mark.parametrize("engine", [PHI3, PROMPTFLOW])
def test_a_wrong_key_stops_the_run_and_resume_goes_on_with_the_right_one(
    server, ask, write_questions, engine
):
    fields = {"endpoint": server.url, "contract": "chat"}
    save_connection("runs", fields, "wrong")
    questions = [f"q{n}" for n in range(60)]
    with pytest.raises(OpsError, match="stopped after 10 equal failures: .*401") as stopped:
        ask(QA, write_questions(*questions), in_flight=4, engine=engine)
    assert MAX_FAILURES <= len(server.requests) < MAX_FAILURES + 4
    failed = len(server.requests)
    rest = f"0 answered, {failed} failed, {60 - failed} not asked; go on with: phi3 run --resume t-"
    assert rest in str(stopped.value)
    save_connection("runs", fields, KEY)
    done = resume_run(stopped.value.fix.split()[-1])
    assert (done.failed, done.not_asked, len(done.answers)) == (0, 0, 60)


def test_a_stopped_endpoint_stops_the_run(ask, write_questions, server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/score"
    save_connection("runs", {"endpoint": url, "contract": "chat"}, KEY)
    monkeypatch.setitem(ATTEMPTS, EndpointUnreachableError, 1)
    with pytest.raises(OpsError, match="stopped after 10 equal failures"):
        ask(QA, write_questions(*(f"q{n}" for n in range(40))), in_flight=4)


def test_a_small_file_whose_lines_have_all_run_is_reported_as_usual(server, ask, write_questions):
    save_connection("runs", {"endpoint": server.url, "contract": "chat"}, "wrong")
    done = ask(QA, write_questions(*(f"q{n}" for n in range(10))))
    assert (done.failed, done.not_asked) == (10, 0)


def test_the_message_of_a_line_tells_a_lasting_error():
    assert is_lasting("AuthenticationError: refused (401)")
    assert not is_lasting("BadRequestError: AuthenticationError: no") and not is_lasting(None)
