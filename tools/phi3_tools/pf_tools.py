"""The package's tools for flows, which run in Prompt flow and in the engine of `phi3_tools.flow`.

A tool makes messages from its inputs, calls the client, and returns the reply in the form that prompt
flow counts, streams and reports.
"""

# This module does not import promptflow, which takes seconds. It must not import annotations from
# __future__ either: promptflow compares a tool's annotations with the class PromptTemplate, and would get
# its name as text.
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import resources
from typing import Any

from .client import (
    ChatCompletion,
    ClientCache,
    Deadline,
    Limits,
    Message,
    Params,
    Phi3Client,
    Reply,
    build_chat,
    parse_prompt,
    read_settings,
)
from .errors import ConfigError, Phi3Error
from .evaluation import (
    RUBRICS,
    Ask,
    AskWithLogprobs,
    JudgeOptions,
    judge_answer,
    judge_pair,
    select_rubrics,
)
from .flow import CustomConnection, PromptTemplate, tool_exception
from .flow import package_tool as tool

# Prompt flow's executor reads a connection's secrets as attributes, and then warns its user of doing so.
logging.getLogger("promptflow.core._connection").addFilter(
    lambda record: "connection.secrets[key]" not in str(record.msg)
)

CACHED_CLIENTS = 16
DEFAULT_MAX_NEW_TOKENS = 128
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 1.0
DEFAULT_CONTEXT_WINDOW = 4096
# Prompt flow's limit is 600 s per line; a line that takes longer ends the whole asynchronous run.
JUDGE_DEADLINE_S = 540.0
LOGPROBS = ("auto", "off")
REPLY_FIELDS = ("finish_reason", "model", "contract", "attempts")  # copied into a detailed answer


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
    """Ask a Phi-3 endpoint; return the answer as text, or as a stream if prompt flow serves a stream."""
    chat = _chat(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    return _answer(connection, chat, params, context_window, deployment, stream)


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
    """Ask a Phi-3 endpoint; return a dict of answer, usage, latency, …

    An error of the endpoint is reported in `error` and does not fail the line. A wrong connection or
    argument fails the line.
    """
    chat = _chat(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    with _promptflow_errors():
        try:
            reply = _traced_chat(_client(connection, deployment), chat, params, context_window)
        except ConfigError:
            raise
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
    """Ask a Phi-3 endpoint with a jinja2 chat prompt; the node's other inputs are its variables."""
    with _promptflow_errors():
        chat = parse_prompt(str(prompt), kwargs)
    params = _params(max_new_tokens, temperature, top_p, stop, seed)
    return _answer(connection, chat, params, context_window, deployment, stream)


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
    """Grade an answer by rubrics, with a Phi-3 endpoint as the judge.

    The result is a dict of `scores` by rubric (None for a rubric without a score) and of the `verdicts`
    of the selected rubrics. An error of the endpoint fails the line; a judge's answer that cannot be
    parsed does not.
    """
    fields = _fields(question=question, answer=answer, ground_truth=ground_truth, context=context)
    with _promptflow_errors():
        options = JudgeOptions(samples, temperature, seed, max_new_tokens)
        selected = select_rubrics(rubrics)
        with _judge(connection, deployment, context_window, logprobs) as ask:
            verdicts = {r.name: judge_answer(ask, r, fields, options) for r in selected}
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
    """Ask a Phi-3 endpoint which of two answers is better, in both orders.

    The result is a dict of the winner, the status, whether both orders agreed, …
    """
    fields = _fields(question=question, answer=answer, ground_truth=ground_truth, context=context)
    fields |= _fields(answer_b=answer_b)
    with _promptflow_errors():
        options = JudgeOptions(max_new_tokens=max_new_tokens)
        criterion, *further = select_rubrics(rubric)
        if further:
            raise ConfigError(f"a comparison uses one rubric, but `rubric` is {rubric!r}")
        with _judge(connection, deployment, context_window, "off") as ask:
            return dict(judge_pair(ask, criterion, fields, options))


def list_package_tools() -> dict[str, Any]:
    """Return the YAML of every tool as a dict, by tool id.

    Prompt flow calls this function through the entry point group `package_tools`.
    """
    load = _yaml_loader()
    tools: dict[str, Any] = {}
    for file in resources.files(__package__).joinpath("yamls").iterdir():
        if file.name.endswith(".yaml"):
            tools.update(load(file.read_text(encoding="utf-8")))
    return tools


def _yaml_loader() -> Callable[[str], Any]:
    """Return a function that reads YAML: PyYAML comes with the engine, ruamel.yaml with promptflow."""
    try:
        import yaml
    except ImportError:
        from ruamel.yaml import YAML

        return YAML(typ="safe").load  # type: ignore[no-any-return]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml takes a tenth of the time
    return partial(yaml.load, Loader=loader)


# -- inputs ----------------------------------------------------------------------------------------


_clients = ClientCache(CACHED_CLIENTS)


def _client(connection: Any, deployment: str) -> Phi3Client:
    settings = read_settings(connection)
    return _clients.get(replace(settings, deployment=deployment) if deployment else settings)


def _chat(question: str, chat_history: Any, messages: Any, system_prompt: str) -> list[Message]:
    with _promptflow_errors():
        return build_chat(question, chat_history, messages, system_prompt)


def _params(
    max_new_tokens: int, temperature: float, top_p: float, stop: Any, seed: int | None
) -> Params:
    with _promptflow_errors():
        return Params(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=None if top_p == DEFAULT_TOP_P else top_p,
            stop=stop or None,
            seed=seed,
        )


def _fields(**texts: Any) -> dict[str, str]:
    """Return a line's fields as texts; data may contain null or numbers."""
    return {name: "" if text is None else str(text) for name, text in texts.items()}


# -- calls -----------------------------------------------------------------------------------------


def _answer(
    connection: CustomConnection,
    chat: list[Message],
    params: Params,
    context_window: int,
    deployment: str,
    stream: bool,
) -> Any:
    with _promptflow_errors():
        client = _client(connection, deployment)
        if stream:
            return _started_stream(client, chat, params, context_window)
        return _traced_chat(client, chat, params, context_window).text


def _started_stream(
    client: Phi3Client, chat: list[Message], params: Params, context_window: int
) -> Iterator[str]:
    """Return a stream whose first piece has arrived; an error before it can still set the status."""
    stream = client.stream(chat, params, context_window=context_window or None)
    first = next(stream, "")

    def pieces() -> Iterator[str]:
        with stream:
            try:
                if first:
                    yield first
                yield from stream
            except Phi3Error as error:
                # The status 200 was sent before; an exception would only cut the answer off.
                yield f"\n\n[The answer broke off: {error}]"

    return pieces()


# Clients of endpoints that have refused `logprobs`.
_without_logprobs: weakref.WeakSet[Phi3Client] = weakref.WeakSet()


@contextmanager
def _judge(
    connection: CustomConnection, deployment: str, context_window: int, logprobs: str
) -> Iterator[Ask]:
    """Yield a function that asks the judge, within prompt flow's time limit for a line."""
    if logprobs not in LOGPROBS:
        raise ConfigError(f"logprobs is {logprobs!r}, but must be {' or '.join(LOGPROBS)}")
    client = _client(connection, deployment)
    deadline = Deadline(JUDGE_DEADLINE_S)

    def ask(messages: list[Message], params: Params) -> Reply:
        deadline.check()
        limits = client.settings.limits
        limits = replace(limits, deadline_s=min(limits.deadline_s, deadline.left))
        # A single turn must fit the window. Several turns are a second attempt, which must stay complete.
        window = context_window if len(messages) == 1 else 0
        return _traced_chat(client, messages, params, window, limits)

    if logprobs == "off" or client.contract != "openai" or client in _without_logprobs:
        yield ask
        return
    with_logprobs = AskWithLogprobs(ask)
    try:
        yield with_logprobs
    finally:
        if with_logprobs.refused:
            _without_logprobs.add(client)


def _traced_chat(
    client: Phi3Client,
    chat: list[Message],
    params: Params,
    context_window: int,
    limits: Limits | None = None,
) -> Reply:
    """Call the client inside a trace, so that the run's metrics and the trace view get the tokens."""
    replies: list[Reply] = []

    # The trace shows the arguments of this function.
    def complete(messages: list[Message], max_new_tokens: Any, temperature: Any) -> ChatCompletion:
        window = context_window or None
        replies.append(client.chat(messages, params, context_window=window, limits=limits))
        return ChatCompletion(replies[0])

    _traced_as_llm(complete)(chat, params.max_new_tokens, params.temperature)
    return replies[0]


def _traced_as_llm(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, traced as an LLM call.

    Prompt flow counts the tokens of LLM calls only, and its public `@trace` has no type. Without the
    private function the tokens are not counted.
    """
    if "promptflow.tracing._trace" not in sys.modules:  # nobody counts
        return function
    try:
        from promptflow.tracing._trace import _traced
        from promptflow.tracing.contracts.trace import TraceType
    except ImportError:
        return function
    return _traced(function, trace_type=TraceType.LLM, name="phi3")  # type: ignore[no-any-return]


def _detail(reply: Reply | None, error: Phi3Error | None) -> dict[str, Any]:
    usage = reply.usage.as_dict() if reply and reply.usage else None
    return {
        "answer": reply.text if reply else "",
        "usage": usage,
        "latency_s": round(reply.latency_s, 4) if reply else None,
        **{name: getattr(reply, name, None) for name in REPLY_FIELDS},
        "request_id": reply.request_id if reply else error and error.request_id,
        "error": error.as_dict() if error else None,
    }


# -- errors ----------------------------------------------------------------------------------------


@contextmanager
def _promptflow_errors() -> Iterator[None]:
    """Raise an error of the client as prompt flow's kind of exception.

    The exception has no cause, because prompt flow prints the traceback of every cause. Its text contains
    everything that the error says.
    """
    try:
        yield
    except Phi3Error as error:
        cause = type(error).__name__
        name = "Phi3UserError" if error.user_fault else "Phi3SystemError"
        raise tool_exception(name, f"{cause}: {error}", cause, error.user_fault) from None
