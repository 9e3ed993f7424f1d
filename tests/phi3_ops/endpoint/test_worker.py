"""The process of a deployment: its messages, and why a model cannot be loaded."""

import json
import os
import queue
import subprocess
import sys
from types import SimpleNamespace

import pytest

from phi3_ops.endpoint.worker import FAILED, INSTALL, Worker, import_scoring, load_error
from tiny_endpoint import HANG_S, stand_in


@pytest.fixture
def worker(tmp_path):
    """Starts a worker with the scoring script of `tiny_endpoint`; gives it and its messages."""

    def start(threads=1):
        deployment = stand_in(tmp_path)
        scoring = import_scoring(deployment.code)
        messages = queue.Queue()
        return Worker(
            scoring, scoring.load(deployment.model), messages.put, threads
        ), SimpleNamespace(next=lambda: messages.get(timeout=HANG_S), empty=messages.empty)

    return start


def request(number, **payload):
    return json.dumps({"id": number, "body": json.dumps(payload)}).encode()


def test_it_reports_the_name_of_the_model(worker):
    worker, messages = worker()
    worker.ready()
    assert messages.next() == {"ready": "blue", "runtime": "a stand-in"}


def test_a_complete_answer_is_one_message(worker):
    worker, messages = worker()
    worker.take(request(7, do="echo", text="ü"))
    answer = messages.next()
    assert (answer["id"], answer["status"]) == (7, 200)
    assert json.loads(answer["text"]) == {"do": "echo", "text": "ü"}


def test_a_body_keeps_its_bytes(worker):
    worker, messages = worker()
    body = '{"do": "echo", "text": "ü"}'.encode().decode("latin-1")
    worker.take(json.dumps({"id": 1, "body": body}).encode())
    assert json.loads(messages.next()["text"])["text"] == "ü"


def test_a_stream_is_a_status_its_pieces_and_an_end(worker):
    worker, messages = worker()
    worker.take(request(3, do="stream", count=2))
    assert messages.next() == {"id": 3, "status": 200}
    numbers = [json.loads(messages.next()["text"].removeprefix("data: "))["number"] for _ in "ab"]
    assert numbers == [0, 1]
    assert messages.next() == {"id": 3, "text": "data: [DONE]\n\n"}
    assert messages.next() == {"id": 3, "end": True}


def test_a_cancelled_stream_ends_without_an_end(worker, tmp_path):
    worker, messages = worker()
    worker.take(request(1, do="stream", closed=str(tmp_path / "closed")))
    assert messages.next() == {"id": 1, "status": 200}
    worker.take(b'{"id": 1}')
    worker.take(request(2, do="echo"))  # runs after the stream, on the only thread
    while (message := messages.next())["id"] == 1:
        assert "end" not in message
    assert message["id"] == 2
    assert (tmp_path / "closed").exists()


def test_a_request_that_is_cancelled_while_it_waits_is_not_run(worker, tmp_path):
    worker, messages = worker()
    go = tmp_path / "go"
    worker.take(request(1, do="wait", until=str(go)))
    worker.take(request(2, do="echo"))
    worker.take(b'{"id": 2}')
    worker.take(request(3, do="echo"))
    go.touch()
    assert [messages.next()["id"] for _ in "ab"] == [1, 3]


def test_a_cancelled_answer_is_not_sent(worker, tmp_path):
    worker, messages = worker()
    worker.take(request(1, do="wait", until=str(tmp_path / "go")))
    worker.take(b'{"id": 1}')
    worker.take(request(2, do="echo"))  # runs after the first one, on the only thread
    assert messages.next()["id"] == 2


def test_a_cancellation_of_an_unknown_request_is_ignored(worker):
    worker, messages = worker()
    worker.take(b'{"id": 99}')
    assert messages.empty()


def test_an_error_of_the_scoring_script_keeps_its_status(worker):
    worker, messages = worker()
    worker.take(request(1, do="fail", status=429))
    assert messages.next() == {
        "id": 1,
        "status": 429,
        "text": json.dumps({"error": {"message": "no", "code": 429}}),
    }


def test_an_exception_becomes_a_500_without_details(worker, caplog):
    worker, messages = worker()
    worker.take(request(1, doing="a KeyError"))
    assert messages.next() == {"id": 1, "status": 500, "text": json.dumps({"error": FAILED})}
    assert "the scoring script failed" in caplog.text


# -- loading -----------------------------------------------------------------------------------------


class ModelNotFoundError(Exception):
    """Has the name of the scoring script's own error."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("No module", name="torch"), f"the package torch is not installed. {INSTALL}"),
        (ModelNotFoundError("m contains no model\nmore"), "m contains no model"),
        (OSError("first\nsecond"), "the model in m cannot be loaded: first"),
        (ValueError(), "the model in m cannot be loaded: ValueError"),
    ],
)
def test_a_reason_is_one_line(error, message):
    assert load_error(error, "m") == message


def test_a_folder_without_scoring_script_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        import_scoring(tmp_path)


@pytest.fixture
def process(tmp_path):
    """The process itself, with pipes."""
    deployment = stand_in(tmp_path)

    def start(model=deployment.model):
        command = [sys.executable, "-m", "phi3_ops.endpoint.worker", deployment.code, model, "2"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    return start


def test_the_end_of_its_input_ends_the_process(process):
    with process() as running:
        assert json.loads(running.stdout.readline()) == {"ready": "blue", "runtime": "a stand-in"}
        running.stdin.write(request(1, do="stream") + b"\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline()) == {"id": 1, "status": 200}
        running.stdin.close()
        assert running.wait(HANG_S) == 0


def test_printed_lines_do_not_get_between_the_messages(process):
    """`SCORE` prints a line while it loads."""
    with process() as running:
        assert json.loads(running.stdout.readline()) == {"ready": "blue", "runtime": "a stand-in"}
        running.stdin.close()
        running.wait(HANG_S)


def test_a_model_that_cannot_be_loaded_ends_the_process_with_a_reason(process, tmp_path):
    with process(tmp_path / "none") as running:
        message = json.loads(running.stdout.readline())
        folder = tmp_path / "none"
        assert message == {
            "failed": f"the model in {folder} cannot be loaded: {folder} is no model"
        }
        # Standard input stays open: its end would end the process as well, with another exit code.
        assert running.wait(HANG_S) == 1


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_a_signal_does_not_end_the_process(process):
    with process() as running:
        assert json.loads(running.stdout.readline()) == {"ready": "blue", "runtime": "a stand-in"}
        running.terminate()
        running.stdin.write(request(1, do="echo") + b"\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["status"] == 200
        running.stdin.close()
        assert running.wait(HANG_S) == 0
