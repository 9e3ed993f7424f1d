"""The deployment's scoring script. Azure's inference server and the local endpoint both run it.

On Azure, azureml-inference-server-http imports this file, calls `init()` once, and calls `run()` for
every request to /score. The local endpoint imports the same file and calls `load()`. Only this folder
is uploaded, so nothing here imports from the rest of the repository.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

# The server imports this file by its path, and that alone does not make the other modules importable.
_FOLDER = str(Path(__file__).resolve().parent)
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)

from answers import ChatAnswer, list_answer  # noqa: E402
from backends import load_backend  # noqa: E402
from chat_template import ChatTemplateError  # noqa: E402
from constraints import Constraint, ConstraintError  # noqa: E402
from conversations import Message  # noqa: E402
from engine import BatchingEngine  # noqa: E402
from engine_interface import BusyError, Engine  # noqa: E402
from grammars import write_grammar  # noqa: E402
from model_files import ModelNotFoundError, find_model  # noqa: E402
from parameters import ScoringError, refuse, shorten  # noqa: E402
from payloads import (  # noqa: E402
    ScoringRequest,
    read_request,
    refuse_list_stream,
    wants_stream,
)
from schema_errors import find_cause  # noqa: E402
from streams import IsAbandoned, Stream  # noqa: E402
from tool_format import CALL_MARKS  # noqa: E402

try:
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
except ImportError:  # not under Azure's server: run() is not called

    def rawhttp(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return function

    AMLResponse: Any = None  # type: ignore[no-redef]

__all__ = ["ModelNotFoundError", "Scorer", "ScoringError", "init", "load", "run", "sse"]

log = logging.getLogger("phi3.score")
# A text of the "list" contract that starts with one of these is in the chat template already, if the mark
# is a control token of the model: those of Phi-3 and of ChatML.
TURN_MARKS = ("<|user|>", "<|assistant|>", "<|system|>", "<|im_start|>")
MAX_REASON = 300  # characters of a chat template's own error
JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"


class Scorer:
    """A loaded model that answers requests. Safe to call from many threads.

    Attributes:
        engine: the model.
        name: name of the model, which answers contain.
        runtime: what runs the model, for people; see `backends.LoadedBackend`.
    """

    def __init__(self, engine: Engine, name: str, runtime: str = ""):
        self.engine = engine
        self.name = name
        self.runtime = runtime
        self._vocabulary_size = engine.vocabulary_size
        marks = [re.escape(mark) for mark in TURN_MARKS if len(engine.encode(mark)) == 1]
        self._rendered = re.compile(rf"\s*(<s>\s*)?({'|'.join(marks) or '(?!)'})")

    def wants_stream(self, payload: Any) -> bool:
        """Return whether a request is to be answered with `stream` instead of `answer`."""
        return wants_stream(payload)

    def answer(
        self, payload: Any, is_abandoned: IsAbandoned | None = None
    ) -> list[str] | dict[str, Any]:
        """Answer a request in one piece. Raises ScoringError.

        `is_abandoned` returns whether the client has gone; the answer is then cut short.
        """
        request = self._read(payload)
        prompts = [self._encode(prompt, request) for prompt in request.prompts]
        try:
            all_prompts = prompts * request.choices
            completions = self.engine.generate(all_prompts, request.params, is_abandoned)
        except BusyError as error:
            raise ScoringError(429, str(error)) from error
        if request.contract == "list":
            texts = [prompt for prompt in request.prompts if isinstance(prompt, str)]
            return list_answer(texts, completions, request.return_full_text)
        answer = ChatAnswer.start(request, self.name, prompts[0], self.engine.tool_format)
        return answer.full_body(completions, self.engine.decode)

    def stream(
        self, payload: Any, is_abandoned: IsAbandoned | None = None
    ) -> Stream[dict[str, Any]]:
        """Answer a request as a series of events. Closing it ends the generation.

        `is_abandoned` returns whether the client has gone, also while no event can be sent.

        Raises ScoringError when it is called, not at the first event.
        """
        request = self._read(payload)
        if request.contract == "list":
            refuse_list_stream()
        prompt = self._encode(request.prompts[0], request)
        try:
            pieces = self.engine.stream(prompt, request.params, is_abandoned)
        except BusyError as error:
            raise ScoringError(429, str(error)) from error
        answer = ChatAnswer.start(request, self.name, prompt, self.engine.tool_format)
        return Stream(_events(answer, pieces), pieces.close)

    def close(self) -> None:
        """Finish the running requests and release the model."""
        self.engine.close()

    def _read(self, payload: Any) -> ScoringRequest:
        """Read a request, and refuse what this model cannot do."""
        request = read_request(payload)
        if request.model not in (None, self.name):
            model = repr(shorten(request.model or ""))
            refuse(f"this deployment serves the model {self.name}, not {model}", "model")
        unknown = [token for token in request.params.logit_bias if token >= self._vocabulary_size]
        if unknown:
            known = f"the model's tokens are 0 to {self._vocabulary_size - 1}"
            refuse(f"logit_bias has the unknown token {unknown[0]}; {known}", "logit_bias")
        if request.answer_format.is_free:
            return request
        return replace(request, params=replace(request.params, constraint=self._constrain(request)))

    def _constrain(self, request: ScoringRequest) -> Constraint:
        """Compile the grammar of a request's answer."""
        answer_format, tool_format = request.answer_format, self.engine.tool_format
        grammars = self.engine.grammars
        marks = grammars.control_tokens(CALL_MARKS[tool_format]) if answer_format.tools else {}
        grammar = write_grammar(answer_format, tool_format, marks)
        try:
            return grammars.compile(grammar, {token: mark for mark, token in marks.items()})
        except ConstraintError as error:
            field, reason = find_cause(answer_format, grammars, str(error))
            refuse(f"{field} cannot be used: {reason}", field)

    def _encode(self, prompt: str | list[Message], request: ScoringRequest) -> list[int]:
        ids = self._token_ids(prompt, request)
        limit, window = request.params.max_new_tokens, self.engine.context_window
        if limit is not None and len(ids) + limit > window:
            refuse(
                f"the prompt has {len(ids)} tokens and {request.limit_field} is {limit}: together"
                f" {len(ids) + limit}, more than the model's context window of {window}",
                request.limit_field,
            )
        if len(ids) >= window:
            refuse(
                f"the prompt has {len(ids)} tokens and leaves no room for an answer in the model's"
                f" context window of {window}",
                "messages",
            )
        return ids

    def _token_ids(self, prompt: str | list[Message], request: ScoringRequest) -> list[int]:
        if isinstance(prompt, str) and self._rendered.match(prompt):
            return self.engine.encode(prompt)
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        try:
            return self.engine.encode_chat(prompt, request.answer_format.offered_tools)
        except ChatTemplateError as error:
            reason = shorten(" ".join(str(error).split()), MAX_REASON)
            refuse(f"the model's chat template refuses the messages: {reason}", "messages")


def _events(answer: ChatAnswer, pieces: Stream[str]) -> Generator[dict[str, Any], None, None]:
    yield from answer.first_events()
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            yield from answer.last_events(end.value)
            return
        yield from answer.text_events(piece)


def sse(events: Stream[dict[str, Any]]) -> Stream[str]:
    """Return events as server-sent events, and `data: [DONE]` after the last one.

    If the model fails, an error is the last event. Source: "OpenAI API reference: streaming".
    """
    return Stream(_sse_lines(events), events.close)


def _sse_lines(events: Stream[dict[str, Any]]) -> Generator[str, None, None]:
    try:
        for event in events:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    except Exception:
        log.exception("a stream failed")
        error = ScoringError(500, "the model failed; see the deployment's log for the cause")
        yield f"data: {json.dumps(error.body)}\n\n"


def load(model_dir: Path, name: str | None = None) -> Scorer:
    """Load a model and generate one token with it.

    `backends.load_backend` chooses the backend. On a CPU the first load exports the model.

    Args:
        model_dir: folder that contains the model, see `find_model`.
        name: name of the model; by default the folder's.

    Raises:
        ModelNotFoundError: the folder does not contain a model.
        OSError, ValueError: the model cannot be loaded.
    """
    loaded = load_backend(find_model(model_dir))
    name = name or _model_name(model_dir.resolve())
    scorer = Scorer(BatchingEngine(loaded.backend), name, loaded.runtime)
    scorer.answer({"input_data": ["Hello"], "params": {"max_new_tokens": 1}})
    log.info("serving %s with %s", name, loaded.runtime)
    return scorer


def _model_name(folder: Path) -> str:
    # Azure mounts a registered model as .../<name>/<version>.
    return folder.parent.name if folder.name.isdigit() else folder.name


_scorer: Scorer | None = None


def init() -> None:
    """Load the model. The inference server calls this once, before the first request."""
    global _scorer
    _scorer = load(Path(os.environ["AZUREML_MODEL_DIR"]))


@rawhttp
def run(request: Any) -> Any:
    """Answer a Flask request with an AMLResponse. The inference server calls this."""
    if request.method != "POST":
        return _error_response(ScoringError(405, f"use POST; {request.method} is not supported"))
    try:
        if _scorer is None:
            raise ScoringError(503, "the model is not loaded yet")
        payload = parse(request.get_data())
        is_disconnected = _disconnect_check(request)
        if _scorer.wants_stream(payload):
            events = sse(_scorer.stream(payload, is_disconnected))
            return AMLResponse(events, 200, {"Content-Type": SSE_TYPE, "Cache-Control": "no-cache"})
        answer = _scorer.answer(payload, is_disconnected)
        body = json.dumps(answer, ensure_ascii=False)
        return AMLResponse(body, 200, {"Content-Type": JSON_TYPE})
    except ScoringError as error:
        return _error_response(error)


def _disconnect_check(request: Any) -> IsAbandoned | None:
    """Return a function that tells whether a request's client has closed the connection.

    Azure's server runs in gunicorn, which passes the connection on. None: another server runs this.
    """
    connection = getattr(request, "environ", {}).get("gunicorn.socket")
    if connection is None:
        return None
    poll = select.poll()
    poll.register(connection, select.POLLIN)

    def is_disconnected() -> bool:
        try:
            return bool(poll.poll(0)) and not connection.recv(1, socket.MSG_PEEK)
        except OSError:  # such as a reset
            return True

    return is_disconnected


def parse(body: bytes) -> Any:
    """Return the JSON value of a request's body. Raises ScoringError 400."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ScoringError(400, "the body is not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise ScoringError(400, "the body is not valid JSON") from error


def _error_response(error: ScoringError) -> Any:
    return AMLResponse(json.dumps(error.body), error.status, {"Content-Type": JSON_TYPE})
