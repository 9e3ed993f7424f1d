"""The deployment's scoring script: what Azure's inference server runs, and the local endpoint too.

On Azure, azureml-inference-server-http imports this file, calls `init()` once and `run()` for
every request to /score. The local endpoint loads the same file and calls `load()`. Only this
folder is uploaded: nothing here imports from the rest of the repository.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# The server imports this file by its path; its neighbours have to be found all the same.
_HERE = str(Path(__file__).resolve().parent)
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

from backends import load_backend  # noqa: E402
from engine import BatchingEngine, BusyError, Engine  # noqa: E402
from generation import Params  # noqa: E402
from model_files import ModelNotFoundError, find_model  # noqa: E402
from payloads import (  # noqa: E402
    Message,
    Reply,
    Request,
    ScoringError,
    list_answer,
    read_request,
    wants_stream,
)

try:
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
except ImportError:  # not on Azure: run() is not used, the rest is

    def rawhttp(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return function

    AMLResponse: Any = None  # type: ignore[no-redef]

__all__ = ["ModelNotFoundError", "Scorer", "ScoringError", "init", "load", "run", "sse"]

log = logging.getLogger("phi3.score")
CHAT_MARKS = ("<|user|>", "<|assistant|>", "<|system|>")
JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"


class Scorer:
    """A loaded model behind the contracts of `payloads`. Safe to call from many threads."""

    def __init__(self, engine: Engine, name: str):
        self.engine = engine
        self.name = name

    def wants_stream(self, payload: Any) -> bool:
        """Whether `stream` rather than `answer` is the one to call."""
        return wants_stream(payload)

    def answer(self, payload: Any) -> list[str] | dict[str, Any]:
        """Answer a request in one piece. Raises ScoringError."""
        request = read_request(payload)
        prompts = [self._encode(prompt, request.params) for prompt in request.prompts]
        try:
            answers = self.engine.generate(prompts, request.params)
        except BusyError as error:
            raise ScoringError(429, str(error)) from error
        if request.contract == "list":
            return list_answer(_texts(request), answers, request.return_full_text)
        return Reply.to(request, self.name, len(prompts[0])).whole(answers[0])

    def stream(self, payload: Any) -> Iterator[dict[str, Any]]:
        """Answer a request event by event. Raises ScoringError at once, not at the first event."""
        request = read_request(payload)
        if request.contract == "list":
            raise ScoringError(400, "a list of texts cannot be streamed: send messages", "stream")
        prompt = self._encode(request.prompts[0], request.params)
        try:
            pieces = self.engine.stream(prompt, request.params)
        except BusyError as error:
            raise ScoringError(429, str(error)) from error
        return _events(Reply.to(request, self.name, len(prompt)), pieces)

    def close(self) -> None:
        """Finish what is running and let the model go."""
        self.engine.close()

    def _encode(self, prompt: str | list[Message], params: Params) -> list[int]:
        ids = self.engine.encode(self._render(prompt))
        total, window = len(ids) + params.max_new_tokens, self.engine.context_window
        if total > window:
            raise ScoringError(
                400,
                f"the prompt has {len(ids)} tokens and max_new_tokens is {params.max_new_tokens}:"
                f" together {total}, over the model's context window of {window}",
                "max_new_tokens",
            )
        return ids

    def _render(self, prompt: str | list[Message]) -> str:
        if isinstance(prompt, list):
            return self.engine.render(prompt)
        if any(mark in prompt for mark in CHAT_MARKS):
            return prompt  # rendered by the client already
        return self.engine.render([{"role": "user", "content": prompt}])


def _texts(request: Request) -> Sequence[str]:
    return [prompt for prompt in request.prompts if isinstance(prompt, str)]


def _events(reply: Reply, pieces: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from reply.start()
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                yield from reply.end(end.value)
                return
            yield reply.delta(piece)
    finally:
        pieces.close()


def sse(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Events as server-sent events, `data: [DONE]` last; a failure is an event, and the last one.

    Source: "OpenAI API reference: streaming".
    """
    try:
        for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    except Exception:
        log.exception("a stream failed")
        body = ScoringError(500, "the model failed; the log of the deployment says why").body
        yield f"data: {json.dumps(body)}\n\n"
    finally:
        getattr(events, "close", lambda: None)()


def load(model_dir: Path, name: str | None = None) -> Scorer:
    """Load the model in model_dir (see `find_model`) and try one token.

    What runs it is `backends.load_backend`'s choice; on a CPU the first time takes an export.
    Raises ModelNotFoundError when there is none, OSError or ValueError when it cannot be loaded.
    """
    engine = BatchingEngine(load_backend(find_model(model_dir)))
    scorer = Scorer(engine, name or _name(model_dir.resolve()))
    scorer.answer({"input_data": ["Hello"], "params": {"max_new_tokens": 1}})
    return scorer


def _name(root: Path) -> str:
    # Azure mounts a registered model as …/<name>/<version>.
    return root.parent.name if root.name.isdigit() else root.name


_scorer: Scorer | None = None


def init() -> None:
    """Called once by the inference server, before the first request."""
    global _scorer
    _scorer = load(Path(os.environ["AZUREML_MODEL_DIR"]))


@rawhttp
def run(request: Any) -> Any:
    """Called by the inference server with a Flask request; returns an AMLResponse."""
    if request.method != "POST":
        return _reply(ScoringError(405, f"send a POST, not a {request.method}"))
    try:
        if _scorer is None:
            raise ScoringError(503, "the model is not loaded yet")
        payload = parse(request.get_data())
        if _scorer.wants_stream(payload):
            events = sse(_scorer.stream(payload))
            return AMLResponse(events, 200, {"Content-Type": SSE_TYPE, "Cache-Control": "no-cache"})
        body = json.dumps(_scorer.answer(payload), ensure_ascii=False)
        return AMLResponse(body, 200, {"Content-Type": JSON_TYPE})
    except ScoringError as error:
        return _reply(error)


def parse(body: bytes) -> Any:
    """The request's JSON. Raises ScoringError 400."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ScoringError(400, "the body is no valid JSON") from error


def _reply(error: ScoringError) -> Any:
    return AMLResponse(json.dumps(error.body), error.status, {"Content-Type": JSON_TYPE})
