"""The package's tools for Prompt flow. The only module here that imports promptflow.

A tool is a thin shim: it makes messages of its inputs, asks the client, and hands the reply on in the
form that prompt flow counts, streams and reports.
"""

# No `from __future__ import annotations` here: promptflow looks for PromptTemplate itself among a
# tool's annotations, and would find its name.
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from typing import Any

from promptflow.contracts.types import PromptTemplate
from promptflow.core import tool
from promptflow.core._connection import CustomConnection
from promptflow.exceptions import ErrorTarget, SystemErrorException, UserErrorException

from .client import (
    Deadline,
    Limits,
    Message,
    Params,
    Phi3Client,
    Reply,
    Settings,
    check_messages,
    from_chat_history,
    parse_prompt,
    read_settings,
)
from .errors import ConfigError, Phi3Error
from .evaluation import RUBRICS, Ask, Options, WithLogprobs, chosen, compare, grade

CLIENTS_KEPT = 16
DEFAULT_MAX_NEW_TOKENS = 128
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 1.0
DEFAULT_CONTEXT_WINDOW = 4096
# Prompt flow gives a line 600 s, and loses the whole asynchronous run when a line takes longer.
JUDGE_DEADLINE_S = 540.0
LOGPROBS = ("auto", "off")
TOLD = ("finish_reason", "model", "contract", "attempts")  # of a reply, in a detailed answer


class Phi3UserError(UserErrorException):
    """A `Phi3Error` that the caller has to fix: served as 4xx.

    Attributes:
        cause_name: name of the `Phi3Error` class; the innermost of prompt flow's error codes.
    """

    cause_name = "Phi3Error"

    @property
    def error_codes(self) -> list[str]:
        return ["UserError", type(self).__name__, self.cause_name]


class Phi3SystemError(SystemErrorException):
    """A `Phi3Error` that the endpoint caused: served as 5xx.

    Attributes:
        cause_name: name of the `Phi3Error` class; the innermost of prompt flow's error codes.
    """

    cause_name = "Phi3Error"

    @property
    def error_codes(self) -> list[str]:
        return ["SystemError", type(self).__name__, self.cause_name]


# -- tools -----------------------------------------------------------------------------------------


@tool(streaming_option_parameter="stream")
def phi3_chat(
    connection: CustomConnection,
    question: str = "",
    chat_history: list[Any] | None = None,
    messages: list[Any] | None = None,
    system_prompt: str = "",
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: list[Any] | None = None,
    seed: int | None = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
    stream: bool = False,
) -> Any:
    """Ask a Phi-3 endpoint; the answer as text, or as a stream when prompt flow serves one."""
    said = _messages(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    return _answer(connection, said, params, context_window, deployment, stream)


@tool
def phi3_chat_detail(
    connection: CustomConnection,
    question: str = "",
    chat_history: list[Any] | None = None,
    messages: list[Any] | None = None,
    system_prompt: str = "",
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: list[Any] | None = None,
    seed: int | None = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
) -> dict[str, Any]:
    """Ask a Phi-3 endpoint; a dict of answer, usage, latency, … An endpoint's failure is reported in
    `error` and does not fail the line; what the caller must mend does."""
    said = _messages(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    try:
        reply = _ask(_client(connection, deployment), said, params, context_window)
    except ConfigError as error:
        raise _as_promptflow(error) from None
    except Phi3Error as error:
        return _detail(None, error)
    return _detail(reply, None)


@tool(streaming_option_parameter="stream")
def phi3_prompt(
    connection: CustomConnection,
    prompt: PromptTemplate,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: list[Any] | None = None,
    seed: int | None = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
    stream: bool = False,
    **kwargs: Any,
) -> Any:
    """Ask a Phi-3 endpoint with a jinja2 chat prompt; its variables are the node's further inputs."""
    try:
        said = parse_prompt(str(prompt), kwargs)
    except Phi3Error as error:
        raise _as_promptflow(error) from None
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    return _answer(connection, said, params, context_window, deployment, stream)


@tool
def phi3_judge(
    connection: CustomConnection,
    question: str = "",
    answer: str = "",
    ground_truth: str = "",
    context: str = "",
    rubrics: str = ",".join(RUBRICS),
    samples: int = 1,
    temperature: float = 0.7,
    seed: int = 0,
    max_new_tokens: int = 192,
    logprobs: str = "auto",
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
) -> dict[str, Any]:
    """Grade an answer by rubrics, with a Phi-3 endpoint as the judge; a dict of `scores` by rubric (None
    for one that has none, or was not asked for) and of the `verdicts` behind them. An endpoint's failure
    fails the line; a judge that cannot be read does not."""
    fields = _fields(question=question, answer=answer, ground_truth=ground_truth, context=context)
    try:
        options = Options(samples, temperature, seed, max_new_tokens)
        wanted = chosen(rubrics)
        with _judging(connection, deployment, context_window, logprobs) as ask:
            verdicts = {r.name: grade(ask, r, fields, options) for r in wanted}
    except Phi3Error as error:
        raise _as_promptflow(error) from None
    scores = {n: verdicts[n]["score"] if n in verdicts else None for n in RUBRICS}
    return {"scores": scores, "verdicts": verdicts}


@tool
def phi3_judge_pair(
    connection: CustomConnection,
    question: str = "",
    answer: str = "",
    answer_b: str = "",
    ground_truth: str = "",
    context: str = "",
    rubric: str = "correctness",
    max_new_tokens: int = 192,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
) -> dict[str, Any]:
    """Ask a Phi-3 endpoint which of two answers is better, in both orders; a dict of winner, status,
    whether both orders agreed, …"""
    fields = _fields(question=question, answer=answer, ground_truth=ground_truth, context=context)
    fields |= _fields(answer_b=answer_b)
    try:
        options = Options(max_new_tokens=max_new_tokens)
        criterion, *more = chosen(rubric)
        if more:
            raise ConfigError(f"a comparison is by one rubric, not by {rubric!r}")
        with _judging(connection, deployment, context_window, "off") as ask:
            return dict(compare(ask, criterion, fields, options))
    except Phi3Error as error:
        raise _as_promptflow(error) from None


def list_package_tools() -> dict[str, Any]:
    """Prompt flow's hook (entry point group `package_tools`): tool id -> its YAML as a dict."""
    from ruamel.yaml import YAML

    tools: dict[str, Any] = {}
    for file in resources.files(__package__).joinpath("yamls").iterdir():
        if file.name.endswith(".yaml"):
            tools.update(YAML(typ="safe").load(file.read_text(encoding="utf-8")))
    return tools


# -- inside ----------------------------------------------------------------------------------------


def _messages(question: str, chat_history: Any, messages: Any, system_prompt: str) -> list[Message]:
    """The chat that a tool's inputs describe; `messages` and `question` may both be given."""
    try:
        said: list[Message] = from_chat_history(_items("chat_history", chat_history))
        given = _items("messages", messages)
        said += check_messages(given) if given else []
    except Phi3Error as error:
        raise _as_promptflow(error) from None
    if question:
        said.append({"role": "user", "content": question})
    if not said or said[-1]["role"] != "user":
        hint = "Give the tool `question` or `messages`."
        raise _as_promptflow(ConfigError("there is no question", hint=hint))
    if system_prompt:
        said.insert(0, {"role": "system", "content": system_prompt})
    return said


def _items(name: str, value: Any) -> list[Any]:
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise ConfigError(f"`{name}` is {type(value).__name__}, but must be a list")
    return list(value)


def _params(
    max_new_tokens: int, temperature: float, top_p: float, stop: Any, seed: int | None
) -> Params:
    try:
        return Params(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=None if top_p == DEFAULT_TOP_P else top_p,
            stop=stop or None,
            seed=seed,
        )
    except Phi3Error as error:
        raise _as_promptflow(error) from None


def _answer(
    connection: CustomConnection,
    said: list[Message],
    params: Params,
    context_window: int,
    deployment: str,
    stream: bool,
) -> Any:
    try:
        client = _client(connection, deployment)
        if stream:
            return _pieces(client, said, params, context_window)
        return _ask(client, said, params, context_window).text
    except Phi3Error as error:
        raise _as_promptflow(error) from None


def _pieces(
    client: Phi3Client, said: list[Message], params: Params, context_window: int
) -> Iterator[str]:
    """A started stream: what fails before the first piece is still answered with its status."""
    stream = client.stream(said, params, context_window=context_window or None)
    first = next(stream, "")

    def pieces() -> Iterator[str]:
        with stream:
            try:
                if first:
                    yield first
                yield from stream
            except Phi3Error as error:
                # The 200 is long sent, and an exception here would just cut the answer off.
                yield f"\n\n[The answer broke off: {error}]"

    return pieces()


def _fields(**texts: Any) -> dict[str, str]:
    """A line's texts. Data may hold null, or a number."""
    return {name: "" if text is None else str(text) for name, text in texts.items()}


# Clients of endpoints that have refused `logprobs`.
_without_logprobs: weakref.WeakSet[Phi3Client] = weakref.WeakSet()


@contextmanager
def _judging(
    connection: CustomConnection, deployment: str, context_window: int, logprobs: str
) -> Iterator[Ask]:
    """Calls the judge, within what prompt flow gives a line."""
    if logprobs not in LOGPROBS:
        raise ConfigError(f"logprobs is {logprobs!r}, but must be {' or '.join(LOGPROBS)}")
    client = _client(connection, deployment)
    deadline = Deadline(JUDGE_DEADLINE_S)

    def ask(messages: list[Message], params: Params) -> Reply:
        deadline.check()
        own = client.settings.limits
        limits = replace(own, deadline_s=min(own.deadline_s, deadline.left))
        # One turn is checked against the window. More are a second try, of which none may be left out.
        window = context_window if len(messages) == 1 else 0
        return _ask(client, messages, params, window, limits)

    if logprobs == "off" or client.contract != "openai" or client in _without_logprobs:
        yield ask
        return
    with_logprobs = WithLogprobs(ask)
    try:
        yield with_logprobs
    finally:
        if with_logprobs.refused:
            _without_logprobs.add(client)


def _ask(
    client: Phi3Client,
    said: list[Message],
    params: Params,
    context_window: int,
    limits: Limits | None = None,
) -> Reply:
    """The client's answer, traced so that its tokens reach the run's metrics and the trace view."""
    replies: list[Reply] = []

    def chat(messages: list[Message], max_new_tokens: Any, temperature: Any) -> _Completion:
        window = context_window or None
        replies.append(client.chat(messages, params, context_window=window, limits=limits))
        return _Completion(replies[0])

    _as_llm(chat)(said, params.max_new_tokens, params.temperature)
    return replies[0]


def _as_llm(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trace a function as an LLM call. Prompt flow counts tokens of such calls only, and its public
    `@trace` cannot say so; without that private function the call is just not counted."""
    try:
        from promptflow.tracing._trace import _traced
        from promptflow.tracing.contracts.trace import TraceType
    except ImportError:
        return function
    return _traced(function, trace_type=TraceType.LLM, name="phi3")  # type: ignore[no-any-return]


class _Usage(dict):  # type: ignore[type-arg]
    def dict(self) -> dict[str, int]:
        return {**self}


class _Completion(dict):  # type: ignore[type-arg]
    """A reply in the form of a chat completion: the run's metrics read `output["usage"]`, the trace
    view reads `output.usage.dict()`."""

    def __init__(self, reply: Reply) -> None:
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        super().__init__(object="chat.completion", model=reply.model or "phi-3", choices=[choice])
        if reply.usage:
            self["usage"] = _Usage(reply.usage.as_dict())

    @property
    def usage(self) -> _Usage | None:
        return self.get("usage")


def _detail(reply: Reply | None, error: Phi3Error | None) -> dict[str, Any]:
    usage = reply.usage.as_dict() if reply and reply.usage else None
    return {
        "answer": reply.text if reply else "",
        "usage": usage,
        "latency_s": round(reply.latency_s, 4) if reply else None,
        **{name: getattr(reply, name, None) for name in TOLD},
        "request_id": reply.request_id if reply else error and error.request_id,
        "error": error.as_dict() if error else None,
    }


def _as_promptflow(error: Phi3Error) -> Phi3UserError | Phi3SystemError:
    """Raise it `from None`: prompt flow prints every cause's traceback, and the text says it all."""
    kind = Phi3UserError if error.user_fault else Phi3SystemError
    exception = kind(message=f"{type(error).__name__}: {error}", target=ErrorTarget.TOOL)
    exception.cause_name = type(error).__name__
    return exception


_clients: OrderedDict[Settings, Phi3Client] = OrderedDict()
_clients_lock = threading.Lock()


def _client(connection: Any, deployment: str) -> Phi3Client:
    """The client of a connection, kept with its open connections and the contract it found."""
    settings = read_settings(connection)
    if deployment:
        settings = replace(settings, deployment=deployment)
    with _clients_lock:
        client = _clients.get(settings) or Phi3Client(settings)
        _clients[settings] = client
        _clients.move_to_end(settings)
        while len(_clients) > CLIENTS_KEPT:
            _clients.popitem(last=False)[1].close()
    return client
