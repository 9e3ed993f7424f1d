"""The state that the calls of a client share: contract, connections, token counter."""

from __future__ import annotations

import asyncio
import logging

from phi3_tools import (
    Usage,
)

USAGE = {"prompt_tokens": 5, "completion_tokens": 2}


def test_usage_is_counted_if_the_endpoint_does_not_report_it(server, connect, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    server.json({"output": "one two"}).json({"output": "one", "usage": USAGE})
    client = connect(server, tokenizer=str(tmp_path / "t.json"))
    assert client.chat("one two one").usage == Usage(4 + 5 + 3, 2, counted=True)
    assert client.chat("one").usage == Usage(5, 2)
    assert connect(server).chat("one").usage == Usage(5, 2)


def test_the_chat_contract_is_detected_and_remembered(server, connect, caplog):
    server.json({"output": "x"})
    client = connect(server)
    assert client.contract == "auto"
    with caplog.at_level(logging.INFO, "phi3_tools"):
        client.chat("Hi")
        client.chat("Hi")
    assert client.contract == "chat"
    assert [r.getMessage() for r in caplog.records] == [f"{server.url} speaks the chat contract"]
    assert len(server.requests) == 2


def test_openai(server, connect):
    server.json({"choices": [{"message": {"content": "Bill"}}]})
    client = connect(server.url.replace("/score", "/v1"), model="phi3")
    assert client.chat("Who?").model == "phi3"
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.bodies()[0]["model"] == "phi3"


def test_a_closed_client_can_be_used_again(server, connect):
    server.json({"output": "x"})
    client = connect(server)
    for _ in range(2):
        assert asyncio.run(client.achat("Hi")).text == "x"
        client.close()
    assert server.connections == 2
