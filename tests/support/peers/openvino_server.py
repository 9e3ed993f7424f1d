"""OpenVINO GenAI's continuous batching behind HTTP, as a benchmark's peer.

    python tests/support/peers/openvino_server.py MODEL.gguf PORT THREADS SLOTS [NAME=VALUE ...]

The library has no HTTP server. This is the thinnest one that streams: one thread calls the pipeline's
`step`, and an ASGI application without a framework sends the new text of each step. Only the fields of
"OpenAI API reference: chat completions" that the benchmark sends are read. NAME=VALUE are properties
of the CPU device.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import openvino_genai
import uvicorn

CACHE_TOKENS = 2048 * 16
BLOCK_TOKENS = 32  # of a block of keys and values on a CPU


class Batcher:
    """Runs the pipeline in one thread and hands the tokens of each step to the request's queue."""

    def __init__(self, model: str, slots: int, properties: dict[str, Any]):
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs = slots
        scheduler.num_kv_blocks = CACHE_TOKENS // BLOCK_TOKENS
        scheduler.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", properties
        )
        self.tokenizer = self._pipeline.get_tokenizer()
        self._ids = itertools.count()
        self._changed = threading.Condition()
        self._new: list[tuple[Any, Any, Callable[[list[int] | None], None]]] = []
        threading.Thread(target=self._work, daemon=True).start()

    def start(
        self, prompt: Any, tokens: int, on_tokens: Callable[[list[int] | None], None]
    ) -> None:
        """Queue a prompt. `on_tokens` gets the new tokens of each step, and None at the end."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        with self._changed:
            self._new.append((prompt, config, on_tokens))
            self._changed.notify()

    def _work(self) -> None:
        running: list[tuple[Any, Callable[[list[int] | None], None]]] = []
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or running)
                new, self._new = self._new, []
            for prompt, config, on_tokens in new:
                handle = self._pipeline.add_request(next(self._ids), prompt, config)
                running.append((handle, on_tokens))
            self._pipeline.step()
            for handle, on_tokens in list(running):
                if handle.can_read():
                    for output in handle.read().values():
                        on_tokens(list(output.generated_ids))
                if handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
                    on_tokens(None)
                    running.remove((handle, on_tokens))


class App:
    """The ASGI application: POST with a chat completion's body, answered as server-sent events."""

    def __init__(self, batcher: Batcher):
        self._batcher = batcher

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "POST":
            await self._answer(json.loads(body), send)
        await send({"type": "http.response.body", "body": b""})

    async def _answer(
        self, request: dict[str, Any], send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        tokenizer = self._batcher.tokenizer
        text = tokenizer.apply_chat_template(request["messages"], add_generation_prompt=True)
        prompt = tokenizer.encode(text, add_special_tokens=False).input_ids
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[list[int] | None] = asyncio.Queue()
        self._batcher.start(
            prompt,
            request["max_tokens"],
            lambda tokens: loop.call_soon_threadsafe(pieces.put_nowait, tokens),
        )
        ids: list[int] = []
        sent = ""
        while (tokens := await pieces.get()) is not None:
            ids += tokens
            text = tokenizer.decode(ids)
            event = {"choices": [{"index": 0, "delta": {"content": text[len(sent) :]}}]}
            sent = text
            await _send_event(send, event)
        usage = {"prompt_tokens": prompt.shape[1], "completion_tokens": len(ids)}
        await _send_event(send, {"choices": [], "usage": usage})


async def _send_event(
    send: Callable[[dict[str, Any]], Awaitable[None]], event: dict[str, Any]
) -> None:
    body = b"data: " + json.dumps(event).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})


def main(model: str, port: str, threads: str, slots: str, *properties: str) -> None:
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": int(threads)}
    settings.update(item.split("=", 1) for item in properties)
    app = App(Batcher(model, int(slots), settings))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
