"""`POST /feedback` of `phi3 serve --feedback`: what is stored, and what is refused with which message."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3

import httpx
import pytest

from phi3_ops import paths
from phi3_ops.chat.app import make_chat_app
from phi3_ops.chat.feedback import FeedbackOptions
from phi3_ops.errors import OpsError
from phi3_ops.feedback.records import MAX_COMMENT, HistoryMessage
from phi3_ops.feedback.store import FeedbackStore
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.pf.connections import delete_connection, save_connection
from phi3_ops.pf.run_types import PHI3, PROMPTFLOW
from phi3_tools.errors import ConfigError
from phi3_tools.serving import MAX_BODY_BYTES

KEY = "Zq8vR2mW5xT1nB7k"
NOWHERE = "http://127.0.0.1:9/score"  # never requested
THUMB = {"kind": "thumbs_up", "question": "Capital of France?", "answer": "Paris."}
CONNECTIONS = ("phi3-tuned", "phi3-tuned-base")


@pytest.fixture(scope="module", autouse=True)
def connections():
    for name in CONNECTIONS:
        save_connection(name, {"endpoint": NOWHERE, "model": f"model of {name}"}, KEY)
    yield
    for name in CONNECTIONS:
        delete_connection(name)


class Server:
    """The app of the flow `chat` in this process, and its store."""

    def __init__(
        self, folder, flow="chat", connections=CONNECTIONS, token=None, user="ann", engine=PHI3
    ):
        self.store = FeedbackStore(folder / "store" / "feedback.sqlite")
        options = FeedbackOptions(self.store.file, user, [token] if token else [])
        definition = FlowDefinition.read(paths.FLOWS / flow)
        self.version = definition.version
        copies = folder / "copies"
        self.app = make_chat_app(
            definition, connections, copies, token=token, engine=engine, feedback=options
        )

    def request(self, method, path, **words):
        async def send():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                return await client.request(method, path, **words)

        return asyncio.run(send())

    def post(self, content, path="/feedback", **words):
        return self.request("POST", path, json=content, **words)


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def message(answer):
    return answer.json()["error"]["message"]


# -- what is stored ------------------------------------------------------------------------------------


def test_everything_about_the_answer_is_stored(server):
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    content = {
        **{"id": "a-1", "kind": "edit", "question": "Capital?", "answer": "Lyon.", "turn": 2},
        **{"edited": "Paris.", "comment": "<b>wrong</b>\0", "conversation": "c-1"},
        **{"history": history, "connection": "phi3-tuned", "against": "phi3-tuned-base"},
    }
    answer = server.post(content)
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "Feedback received.", "id": "a-1"},
    )
    (record,) = server.store.records()
    stored = record.to_json()
    assert stored.pop("time").endswith("+00:00")
    assert stored == {
        **content,
        **{"who": "ann", "chosen": None, "rejected": None},
        **{"flow": "chat", "flow_version": server.version, "model": "model of phi3-tuned"},
    }
    assert record.history[1] == HistoryMessage("assistant", "Hello")


def test_a_choice_is_about_the_chosen_answer(server):
    choice = {"kind": "choice", "question": "?", "chosen": "A", "rejected": "B"}
    names = {"connection": "phi3-tuned-base", "against": "phi3-tuned"}
    assert server.post(choice | names).status_code == 200
    (record,) = server.store.records()
    assert (record.answer, record.chosen, record.rejected) == ("A", "A", "B")
    assert (record.connection, record.against) == ("phi3-tuned-base", "phi3-tuned")


def test_each_path_stands_for_its_connection(server):
    for path in ("/feedback", "/side1/feedback"):
        assert server.post(THUMB, path).status_code == 200
    assert [record.connection for record in server.store.records()] == list(CONNECTIONS)


def test_the_same_feedback_sent_twice_is_stored_once(server):
    sent = THUMB | {"id": "a-1", "conversation": "c-1"}
    assert [server.post(sent).status_code for _ in range(2)] == [200, 200]
    other = server.post(sent | {"kind": "thumbs_down"})
    assert other.status_code == 409 and message(other).startswith("id: other feedback with the id")
    assert len(server.store.records()) == 1


def test_the_same_feedback_without_a_conversation_is_stored_once_too(server):
    sent = THUMB | {"id": "a-1"}
    assert [server.post(sent).status_code for _ in range(2)] == [200, 200]
    (record,) = server.store.records()
    assert record.conversation == "a-1"


@pytest.mark.parametrize("path", ["/feedback", "/feedback?flatten=true"])
def test_promptflows_feedback_is_stored_as_a_comment(server, path):
    answer = server.post({"feedback": 1, "reason": "größer"}, path)
    assert answer.json()["status"] == "Feedback received."
    (record,) = server.store.records()
    assert record.kind == "comment"
    assert json.loads(record.comment) == {"feedback": 1, "reason": "größer"}


def test_a_flow_without_a_connection_and_without_a_chat_page(tmp_path):
    server = Server(tmp_path, flow="eval", connections=[])
    assert server.post(THUMB | {"connection": "eval"}).status_code == 200
    (record,) = server.store.records()
    assert (record.flow, record.connection, record.model) == ("eval", None, None)
    page = server.request("GET", "/").text
    assert f"is stored in <code>{server.store.file}</code>" in page


# -- who, and what is cut out --------------------------------------------------------------------------


def basic(user, password):
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_who_is_the_user_of_the_password_or_the_one_that_is_named(tmp_path):
    server = Server(tmp_path, token="sesame", user=None)
    assert server.post(THUMB).status_code == 401
    assert server.post(THUMB, headers=basic("eve", "wrong")).status_code == 401
    bearer = {"authorization": "Bearer sesame"}
    for headers in (basic("bob", "sesame"), basic("", "sesame"), bearer):
        assert server.post(THUMB, headers=headers).status_code == 200
    assert server.post(THUMB | {"who": "customer 7"}, headers=bearer).status_code == 200
    assert [record.who for record in server.store.records()] == ["bob", None, None, "customer 7"]


def test_keys_and_the_password_are_cut_out(tmp_path):
    password = "a-long-password-of-the-page"
    server = Server(tmp_path, token=password)
    encoded = base64.b64encode(KEY.encode()).decode()
    texts = {
        "question": f"my key is {KEY}",
        "answer": f"Bearer {encoded}",
        "edited": f"no {KEY}",
        "comment": f"it said {password}",
        "history": [{"role": "user", "content": KEY}],
    }
    sent = server.post({"kind": "edit", **texts}, headers=basic("ann", password))
    assert sent.status_code == 200
    stored = b"".join(file.read_bytes() for file in server.store.file.parent.iterdir())
    for secret in (KEY, encoded, password):
        assert secret.encode() not in stored
    (record,) = server.store.records()
    assert (record.question, record.comment) == ("my key is …", "it said …")


def test_words_that_are_a_part_of_a_password_stay(tmp_path):
    server = Server(tmp_path, token="Microsoft-2024")
    answer = "Bill Gates founded Microsoft, not Microsoft-2024, nor Microsoft%2D2024."
    sent = server.post(THUMB | {"answer": answer}, headers=basic("ann", "Microsoft-2024"))
    assert sent.status_code == 200
    (record,) = server.store.records()
    assert record.answer == "Bill Gates founded Microsoft, not …, nor …."


def test_the_options_do_not_show_the_password(tmp_path):
    assert "sesame" not in repr(FeedbackOptions(tmp_path / "f", None, ["sesame"]))


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (THUMB | {"kind": "stars"}, "kind: is not one of thumbs_up, thumbs_down, edit, choice"),
        (THUMB | {"kind": 5}, "kind: is not a text"),
        (THUMB | {"stars": 5}, "stars: is not a field; the fields are kind, question, answer"),
        (THUMB | {"\ud800": 5}, "\\ud800: is not a field"),
        (THUMB | {"flow": "qa"}, "flow: is set by the server; leave it out"),
        (THUMB | {"time": "now"}, "time: is set by the server; leave it out"),
        ({"kind": "thumbs_up", "question": "?"}, "answer: is missing"),
        (THUMB | {"answer": ["x"]}, "answer: is not a text"),
        (THUMB | {"answer": "\ud83d"}, "answer: contains half of a surrogate pair"),
        (THUMB | {"kind": "edit"}, "edited: is missing, but the kind is edit"),
        ({"kind": "choice", "question": "?", "chosen": "A"}, "rejected: is missing"),
        (THUMB | {"edited": "x"}, "edited: belongs to the kind edit, not thumbs_up"),
        (THUMB | {"connection": "other"}, "connection: is not one of phi3-tuned, phi3-tuned-base"),
        (THUMB | {"against": ["x"]}, "against: is not one of phi3-tuned, phi3-tuned-base"),
        (THUMB | {"turn": 0}, "turn: is not between 1 and 1000000"),
        (THUMB | {"turn": 1.5}, "turn: is not an integer"),
        (THUMB | {"history": [{"role": "tool", "content": ""}]}, "history[0].role: is not one of"),
        (THUMB | {"history": {"role": "user"}}, "history: is not an array of messages"),
        (THUMB | {"who": "x" * 201}, "who: has more than 200 characters"),
        (THUMB | {"conversation": ""}, "conversation: is missing"),
        (THUMB | {"id": f"my {KEY}"}, "id: contains a key or the password"),
        (THUMB | {"conversation": "c\0d"}, "conversation: contains a control character"),
        (THUMB | {"who": "a\nb"}, "who: contains a control character"),
        (THUMB | {"kind": "edit", "edited": "\0\u200b "}, "edited: has no visible character"),
        ({"kind": "choice", "chosen": "A", "rejected": "B"}, "question: is missing"),
        (
            {"kind": "choice", "question": "?", "answer": "C", "chosen": "A", "rejected": "B"},
            "answer: is not the chosen answer; leave it out",
        ),
        ({"x": "y" * MAX_COMMENT}, f"feedback without `kind` has more than {MAX_COMMENT}"),
        (["thumbs_up"], "the body is not a JSON object"),
    ],
    ids=range(28),
)
def test_a_field_that_is_not_valid_is_named(server, content, expected):
    body = json.dumps(content)  # escapes half of a surrogate pair, which httpx does not
    answer = server.request("POST", "/feedback", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UserError")
    assert message(answer).startswith(expected)
    assert server.store.records() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"kind": "edit"'])
def test_a_body_that_is_not_json_is_refused(server, body):
    answer = server.request("POST", "/feedback", content=body)
    assert (answer.status_code, message(answer)) == (400, "the body is not JSON")


def test_a_page_of_an_earlier_start_is_refused(server):
    start = server.request("GET", "/page.json").json()["start"]
    assert server.post(THUMB, headers={"x-phi3-start": start}).status_code == 200
    answer = server.post(THUMB, headers={"x-phi3-start": "earlier"})
    assert answer.status_code == 409
    assert message(answer).startswith("the server was started again since this page was loaded")
    assert len(server.store.records()) == 1


def test_an_edit_takes_an_earlier_one_back(server):
    for edited in ("Lyon.", "Paris."):  # the second one is the answer
        assert server.post(THUMB | {"kind": "edit", "edited": edited}).status_code == 200
    assert [record.edited for record in server.store.records()] == ["Lyon.", "Paris."]


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 10 * 2**20])
def test_a_body_that_is_too_large_is_refused(server, size):
    answer = server.request("POST", "/feedback", content=b" " * size)
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/feedback", "/side1/feedback"])
def test_pages_of_other_origins_and_other_methods_are_refused(server, path):
    assert server.post(THUMB, path, headers={"origin": "http://example.org"}).status_code == 403
    answer = server.request("GET", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert server.store.records() == []


# -- a store that fails --------------------------------------------------------------------------------


def test_a_full_disk_is_507_and_the_next_attempt_succeeds(server, monkeypatch):
    connect = sqlite3.connect

    def connect_to_full_disk(*words, **options):
        database = connect(*words, **options)
        if "mode=rw" in str(words[0]):
            database.execute("PRAGMA max_page_count = 1")  # SQLite's error is that of a full disk
        return database

    sent = THUMB | {"id": "a-1", "answer": "x" * 50_000}
    monkeypatch.setattr(sqlite3, "connect", connect_to_full_disk)
    answer = server.post(sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "SystemError")
    assert message(answer) == (
        f"the feedback was not saved: the disk of the feedback store {server.store.file} is full. "
        "Free some space, and try again."
    )
    monkeypatch.undo()
    assert server.post(sent).status_code == 200
    assert [record.id for record in server.store.records()] == ["a-1"]


def test_a_store_that_was_removed_is_500_in_one_line(server):
    server.store.file.unlink()
    answer = server.post(THUMB)
    assert answer.status_code == 500
    assert "the feedback was not saved: the feedback store" in message(answer)
    assert "\n" not in message(answer)


def test_a_connection_that_was_deleted_is_500_in_one_line(server, monkeypatch):
    def missing(name):
        raise ConfigError("the keyring is locked")

    monkeypatch.setattr("phi3_ops.chat.feedback.require_connection", missing)
    answer = server.post(THUMB)
    assert answer.status_code == 500
    assert message(answer).startswith("the feedback was not saved: the keyring is locked")


def test_a_store_that_cannot_be_used_stops_the_start(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "feedback.sqlite").write_text("my notes")
    (tmp_path / "store" / "feedback.sqlite").chmod(0o600)
    with pytest.raises(OpsError, match="is not a feedback store"):
        Server(tmp_path)


# -- the page and the document -------------------------------------------------------------------------


def test_the_page_knows_where_feedback_is_stored(server):
    assert server.request("GET", "/page.json").json()["feedback"] == str(server.store.file)


@pytest.mark.parametrize("path", ["/swagger.json", "/side1/swagger.json"])
def test_the_document_describes_the_fields(server, path):
    answer = server.request("GET", path)
    assert int(answer.headers["content-length"]) == len(answer.content)
    description = answer.json()["paths"]["/feedback"]["post"]
    assert description["summary"] == "store feedback on an answer"
    assert {"200", "400", "409", "413", "500", "507"} == set(description["responses"])
    assert "/score" in answer.json()["paths"]


def test_it_is_the_same_with_promptflows_own_app(tmp_path):
    server = Server(tmp_path, engine=PROMPTFLOW)
    assert server.post(THUMB, "/side1/feedback").status_code == 200
    assert [record.connection for record in server.store.records()] == [CONNECTIONS[1]]
    document = server.request("GET", "/swagger.json").json()
    assert document["paths"]["/feedback"]["post"]["summary"] == "store feedback on an answer"
    assert server.post(THUMB, headers={"origin": "http://example.org"}).status_code == 403


def test_without_the_option_nothing_is_stored(tmp_path):
    flow = FlowDefinition.read(paths.FLOWS / "chat")
    server = object.__new__(Server)
    server.app = make_chat_app(flow, ["phi3-tuned"], tmp_path, token=None)
    assert server.post(THUMB).json() == {"status": "Feedback received."}
    assert server.request("GET", "/page.json").json()["feedback"] is None
    document = server.request("GET", "/swagger.json").json()
    summary = document["paths"]["/feedback"]["post"]["summary"]
    assert summary == "collect promptflow feedback"
