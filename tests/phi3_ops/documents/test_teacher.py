"""The teacher: what is asked once, what is counted, and endpoints with newer parameters."""

import pytest

from phi3_ops.documents.journal import Journal
from phi3_ops.documents.teacher import Budget, BudgetReachedError, Teacher, open_teacher
from phi3_tools import BadRequestError, Params, Reply, ServerError, Usage

QUESTION = [{"role": "user", "content": "one?"}]
PLAIN, STRUCTURED = Params(max_new_tokens=9, temperature=0), Params(response_format="json_object")


class Client:
    """Answers with the given replies; an error is raised. Keeps what it was asked."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def chat(self, messages, params):
        self.asked.append((messages, params))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


@pytest.fixture
def make(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:

        def made(*replies, name="t", calls=None, redact=str):
            client = Client(*replies)
            return Teacher(client, name, journal, Budget(calls), redact), client, journal

        yield made


def test_an_answer_is_asked_once_per_connection_and_parameters(make):
    teacher, client, journal = make(Reply("1", Usage(7, 2)), Reply("2"))
    assert [teacher(QUESTION, PLAIN).text for _ in range(3)] == ["1", "1", "1"]
    assert teacher(QUESTION, Params(max_new_tokens=8)).text == "2"
    assert len(client.asked) == 2
    other, other_client, _ = make(Reply("3"), name="other")
    assert other(QUESTION, PLAIN).text == "3" and len(other_client.asked) == 1
    again, again_client, _ = make()
    assert again(QUESTION, PLAIN).text == "1" and not again_client.asked
    assert sum(entry.tokens for entry in journal.entries) == 9


def test_another_endpoint_of_the_connection_is_asked_anew(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        for number, endpoint in enumerate([("u", "m"), ("u", "n"), ("v", "m"), ("u", "m")]):
            client = Client(Reply(str(number)))
            teacher = Teacher(client, "t", journal, Budget(), endpoint=endpoint)
            assert teacher(QUESTION, PLAIN).text == str(number % 3)


def test_the_budget_counts_repairs_and_is_never_exceeded(make):
    answer = Reply("x", parsed={"a": "ü"}, repairs=1)
    teacher, client, journal = make(answer, Reply("y"), calls=3)
    assert teacher(QUESTION, STRUCTURED).text == '{"a": "ü"}'
    assert teacher(QUESTION, PLAIN).text == "y"
    with pytest.raises(BudgetReachedError):
        teacher(QUESTION, Params(seed=1))
    assert len(client.asked) == 2
    assert [entry.calls for entry in journal.entries] == [2, 1]


def test_the_budget_counts_the_retries_of_the_client(make):
    failure = ServerError("down", status=503)
    failure.attempts = 3
    teacher, _, journal = make(Reply("x", attempts=2), failure, calls=5)
    assert teacher(QUESTION, PLAIN).text == "x"
    with pytest.raises(ServerError):
        teacher(QUESTION, Params(seed=1))
    with pytest.raises(BudgetReachedError):
        teacher(QUESTION, Params(seed=2))
    assert [entry.calls for entry in journal.entries] == [2]


def test_a_call_by_a_schema_needs_room_for_its_repair(make):
    teacher, client, _ = make(calls=1)
    with pytest.raises(BudgetReachedError):
        teacher(QUESTION, STRUCTURED)
    assert not client.asked


def test_an_error_is_not_stored(make):
    teacher, client, journal = make(ServerError("down"), Reply("1"))
    with pytest.raises(ServerError):
        teacher(QUESTION, PLAIN)
    assert not journal.entries
    assert teacher(QUESTION, PLAIN).text == "1"


def test_the_key_is_not_stored(make):
    teacher, _, journal = make(
        Reply("the key is K3Y"), redact=lambda text: text.replace("K3Y", "…")
    )
    assert teacher(QUESTION, PLAIN).text == "the key is …"
    assert "K3Y" not in journal.file.read_text()


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "Unsupported value: 'temperature' does not support 0 with this model.",
    ],
)
def test_newer_models_of_openai_get_their_parameters(make, message):
    refusal = BadRequestError("refused", detail=message)
    teacher, client, _ = make(refusal, Reply("1"), Reply("2"))
    assert teacher(QUESTION, PLAIN).text == "1"
    assert teacher(QUESTION, Params(max_new_tokens=5)).text == "2"
    renamed = client.asked[1][1]
    assert renamed.temperature is None
    assert renamed.extra == {"max_tokens": None, "max_completion_tokens": 9}
    assert client.asked[2][1].extra["max_completion_tokens"] == 5
    other, _, _ = make(BadRequestError("refused", detail="too long"), name="other")
    with pytest.raises(BadRequestError):
        other(QUESTION, PLAIN)


def test_a_teacher_of_a_connection_hides_its_key(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3_CONNECTION_WISE_ENDPOINT", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("PHI3_CONNECTION_WISE_KEY", "a-long-secret-key")
    with Journal(tmp_path / "j.jsonl") as journal:
        teacher, client = open_teacher("wise", journal, Budget())
        client.close()
    assert teacher._endpoint[0].startswith("http://127.0.0.1:9/v1")
    assert "a-long-secret-key" not in teacher._redact("it is a-long-secret-key")
