"""OpenVINO GenAI's continuous batching behind HTTP, as a benchmark's peer.

    python tests/support/peers/openvino_server.py MODEL.gguf PORT THREADS SLOTS [NAME=VALUE ...]

The library has no HTTP server. This is the thinnest one that streams: an ASGI application without a
framework, and a second process for the pipeline, because its `step` holds the interpreter's lock. Only
the fields of "OpenAI API reference: chat completions" that the benchmark sends are read. NAME=VALUE
are properties of the CPU device.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import uvicorn

TOKENS_PER_SLOT = 1280
BLOCK_TOKENS = 32  # of a block of keys and values on a CPU

# --- the process of the pipeline ---------------------------------------------------------------


def run_pipeline(
    connection: Connection, model: str, slots: int, properties: dict[str, Any]
) -> None:
    """Answer requests of the form (id, messages, tokens) with events of the form (id, event).

    An event is None at the end.
    """
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = slots
    scheduler.num_kv_blocks = TOKENS_PER_SLOT * slots // BLOCK_TOKENS
    scheduler.enable_prefix_caching = True
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    tokenizer = pipeline.get_tokenizer()
    running: list[Any] = []
    connection.send((None, None))  # ready
    while True:
        while not running or connection.poll():
            number, messages, tokens = connection.recv()
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            prompt = tokenizer.encode(text, add_special_tokens=False).input_ids
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
            handle = pipeline.add_request(number, prompt, config)
            running.append(Running(number, handle, prompt.shape[1]))
        pipeline.step()
        for request in list(running):
            for event in request.new_events(tokenizer):
                connection.send((request.number, event))
            if request.handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
                connection.send((request.number, request.usage()))
                connection.send((request.number, None))
                running.remove(request)


class Running:
    """A request in the pipeline."""

    def __init__(self, number: int, handle: Any, prompt_tokens: int):
        self.number, self.handle, self.prompt_tokens = number, handle, prompt_tokens
        self._ids: list[int] = []
        self._text = ""

    def new_events(self, tokenizer: Any) -> list[dict[str, Any]]:
        """Return an event with the text of the last step, if there is any."""
        if not self.handle.can_read():
            return []
        for output in self.handle.read().values():
            self._ids += output.generated_ids
        before, self._text = self._text, tokenizer.decode(self._ids)
        return [{"choices": [{"index": 0, "delta": {"content": self._text[len(before) :]}}]}]

    def usage(self) -> dict[str, Any]:
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": len(self._ids)}
        return {"choices": [], "usage": counts}


# --- the process of the HTTP server ------------------------------------------------------------


class App:
    """The ASGI application: POST with a chat completion's body, answered as server-sent events."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._ids = itertools.count()
        self._put: dict[int, Callable[[Any], None]] = {}
        threading.Thread(target=self._read_events, daemon=True).start()

    def _read_events(self) -> None:
        try:
            while True:
                number, event = self._connection.recv()
                self._put[number](event)
        except EOFError:
            os._exit(1)  # the pipeline's process has ended

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "POST":
            await self._answer(json.loads(body), send)
        await send({"type": "http.response.body", "body": b""})

    async def _answer(
        self, request: dict[str, Any], send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Any]()
        number = next(self._ids)
        self._put[number] = lambda event: loop.call_soon_threadsafe(events.put_nowait, event)
        self._connection.send((number, request["messages"], request["max_tokens"]))
        while (event := await events.get()) is not None:
            body = b"data: " + json.dumps(event).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        del self._put[number]


def main(model: str, port: str, threads: str, slots: str, *properties: str) -> None:
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": int(threads)}
    settings.update(item.split("=", 1) for item in properties)
    context = multiprocessing.get_context("spawn")
    connection, other_end = context.Pipe()
    arguments = (other_end, model, int(slots), settings)
    context.Process(target=run_pipeline, args=arguments, daemon=True).start()
    other_end.close()
    connection.recv()
    uvicorn.run(App(connection), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
