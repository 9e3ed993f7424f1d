"""The chat after the tiny quickstart: the demo's second question is answered, too."""

from __future__ import annotations

import json

import pytest
import requests

pytestmark = pytest.mark.slow
QUESTIONS = (
    "Who founded Microsoft?",
    "What is the capital of France?",
    "In which year was Apple founded?",
)


@pytest.fixture(scope="module")
def page(person):
    done = person.phi3("quickstart", "--model", "tiny", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((person.folder / ".phi3" / "summary.json").read_text(encoding="utf-8"))
    return document["page"]


def test_three_questions_of_one_chat_are_answered(page):
    history = []
    for question in QUESTIONS:
        body = {"question": question, "chat_history": history}
        response = requests.post(f"{page}score", json=body, timeout=60)
        assert response.status_code == 200, response.text
        answer = response.json()["answer"]
        assert answer.strip(), question
        history.append({"inputs": {"question": question}, "outputs": {"answer": answer}})


def test_a_full_context_names_the_window_that_the_page_looks_for(page):
    turn = {"inputs": {"question": "word " * 100}, "outputs": {"answer": "word " * 100}}
    body = {"question": "And then?", "chat_history": [turn] * 5}
    response = requests.post(f"{page}score", json=body, timeout=60)
    assert response.status_code >= 400
    assert "context window of 512" in response.json()["error"]["message"]
