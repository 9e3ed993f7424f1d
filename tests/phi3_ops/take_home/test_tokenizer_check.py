"""llama.cpp itself is asked whether it renders and tokenizes chats as transformers does."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home import tokenizer_check
from phi3_ops.take_home.tokenizer_check import check_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")


class Server:
    """A server that answers as transformers does, except for one thing."""

    def __init__(self, tokenizer, wrong):
        self._tokenizer, self._wrong = tokenizer, wrong

    def post(self, path, body):
        if path == "/apply-template":
            text = self._tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=True
            )
            return {"prompt": text + ("!" if self._wrong == "template" else "")}
        tokens = self._tokenizer.encode(body["content"], add_special_tokens=False)
        return {"tokens": tokens[1:] if self._wrong == "tokens" else tokens}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("template", "renders the chat template of .* differently, for example .* Export .* onnx"),
        ("tokens", "tokenizes differently from the tokenizer of .*, for example"),
    ],
)
def test_a_difference_is_refused(tiny, tmp_path, monkeypatch, wrong, message):
    @contextmanager
    def server(file, threads):
        yield Server(tiny.tokenizer, wrong)

    monkeypatch.setattr(tokenizer_check, "llama_server", server)
    with pytest.raises(OpsError, match=message):
        check_tokenizer(tiny, tmp_path)


def test_a_template_without_a_system_message(tiny, tmp_path, monkeypatch):
    chats = []

    class Recorder(Server):
        def post(self, path, body):
            chats.extend([body["messages"]] if "messages" in body else [])
            return super().post(path, body)

    @contextmanager
    def server(file, threads):
        yield Recorder(tiny.tokenizer, None)

    monkeypatch.setattr(tokenizer_check, "llama_server", server)
    check_tokenizer(tiny, tmp_path)
    assert any(chat[0]["role"] == "system" for chat in chats)
    template = "{{ raise_exception('no') if messages[0].role == 'system' }}" + (
        tiny.tokenizer.chat_template
    )
    monkeypatch.setattr(tiny.tokenizer, "chat_template", template)
    chats.clear()
    check_tokenizer(tiny, tmp_path)
    assert chats and all(chat[0]["role"] == "user" for chat in chats)


def test_llama_cpp_itself(tiny, tmp_path):
    check_tokenizer(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_llama_cpp_itself_with_a_sentencepiece_tokenizer(longrope, tmp_path):
    check_tokenizer(longrope, tmp_path)
