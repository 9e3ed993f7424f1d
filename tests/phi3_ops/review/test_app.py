"""The app of the page: its routes, its token, and what it refuses."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from phi3_ops.review.app import make_review_app, new_token
from phi3_ops.review.store import read_judgements

TOKEN = new_token()
HOST = "http://127.0.0.1:8080"


@pytest.fixture
def session(open_session):
    return open_session("base", "tuned")


@pytest.fixture
def client(session):
    app = make_review_app(session, TOKEN, lambda: {"sections": ["the summary"]})
    return TestClient(app, base_url=f"{HOST}/{TOKEN}/", raise_server_exceptions=False)


def test_the_page_and_its_files_are_served_with_a_strict_policy(client):
    for path, media_type in (
        ("", "text/html"),
        ("page.js", "text/javascript"),
        ("page.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(media_type)
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_the_overview_has_the_rubric(client):
    overview = client.get("overview").json()
    assert (overview["lines"], overview["runs"], overview["judged"]) == (30, 2, 0)
    assert overview["rubric"]["name"] == "correctness"
    assert len(overview["rubric"]["levels"]) == 5


def test_a_judgement_is_answered_with_the_line_and_the_progress(client, session):
    position = session.lines.index(0)
    body = {"kind": "choice", "value": "tie"}
    line = client.post(f"lines/{position}", json=body).json()
    assert (line["choice"], line["judged"], line["progress"]["judged"]) == ("tie", True, 1)
    assert len(read_judgements("base.jsonl")) == 1
    assert client.get(f"lines/{position}").json()["choice"] == "tie"


def test_scores_come_on_demand(client):
    assert client.get("lines/0").json()["answers"][0]["scores"] is None
    assert client.get("lines/0?scores=1").json()["answers"][0]["scores"]


def test_the_end_gives_the_summary_and_accepts_nothing_more(client):
    assert client.post("end").json() == {"sections": ["the summary"]}
    answer = client.post("lines/0", json={"kind": "flag", "answer": 0, "value": True})
    assert (answer.status_code, "has ended" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b'{"kind": "rating", "answer": 0, "value": 9}', 400),
        (b'{"kind": "edit", "answer": 0, "value": "\\ud800"}', 400),
        (b" " * (2 * 2**20 + 1), 413),
    ],
    ids=["empty", "array", "broken", "deep", "no-utf-8", "rating", "surrogate", "large"],
)
def test_a_wrong_body_is_refused_with_a_reason(client, body, status):
    answer = client.post("lines/0", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["lines/30", "lines/99999999999999999999"])
def test_a_line_that_does_not_exist_is_refused(client, path):
    assert client.get(path).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["", "overview", f"{TOKEN[:-1]}/", f"x{TOKEN}/", "é/", f"{TOKEN}"],
    # The token differs between the processes that run the tests.
    ids=["nothing", "overview", "shorter", "longer", "not ASCII", "no slash"],
)
def test_without_the_token_nothing_is_served(client, path):
    answer = client.get(f"{HOST}/{path}")
    assert answer.status_code == 404
    assert "the address that `phi3 review` printed" in answer.text


@pytest.mark.parametrize(
    "headers", [{"host": "rebound.example.org"}, {"origin": "https://example.org"}], ids=str
)
def test_pages_of_other_origins_are_refused(client, headers):
    assert client.get("overview", headers=headers).status_code == 403


def test_other_methods_and_paths_are_refused(client):
    assert client.post("overview").status_code == 405
    assert client.get("page/../../records.py").status_code == 404


def test_a_full_disk_is_an_error_and_the_judgement_is_not_shown(client, session, monkeypatch):
    from phi3_ops.review import store

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    answer = client.post("lines/0", json={"kind": "rating", "answer": 0, "value": 3})
    assert answer.status_code == 500
    assert "No space left on device" in answer.json()["error"]["message"]
    assert session.judgements == []


def test_the_token_is_not_guessable():
    assert len({new_token() for _ in range(100)}) == 100 and len(new_token()) == 32


def test_no_route_gives_the_name_of_a_run(client):
    texts = [client.get(path).text for path in ("overview", "lines/0", "page.js")]
    assert not any(".jsonl" in text for text in texts)
    assert json.loads(texts[1])["answers"][0].keys() == {
        "text",
        "rating",
        "edited",
        "flagged",
        "scores",
        "reasons",
    }
