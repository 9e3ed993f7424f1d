"""Calls of the tools for flows: kept clients, schemas, traces, streams, and prompt flow's exceptions."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
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
    parse_prompt,
    read_settings,
)
from .errors import ConfigError, InvalidAnswerError, Phi3Error
from .evaluation import Ask, AskWithLogprobs
from .flow import (
    CustomConnection,
    PromptTemplate,
    current_flow_folder,
    tool_exception,
    traced_as_llm,
)

CACHED_CLIENTS = 16
# Prompt flow's limit is 600 s per line; a line that takes longer ends the whole asynchronous run.
JUDGE_DEADLINE_S = 540.0
LOGPROBS = ("auto", "off")
FLOW_FILES = ("flow.dag.yaml", "flow.py", "workflow.py")  # of a flow, and of exported flows
OPENAI, AZURE_OPENAI = "OpenAIConnection", "AzureOpenAIConnection"  # promptflow's types
PASSED_INPUTS = ("presence_penalty", "frequency_penalty", "logit_bias", "response_format")
REFUSED_INPUTS = ("functions", "function_call", "tools", "tool_choice")  # of an llm node
REPLY_FIELDS = ("finish_reason", "model", "contract", "attempts")  # copied into a detailed answer

_clients = ClientCache(CACHED_CLIENTS)


def client_of(connection: Any, deployment: str = "") -> Phi3Client:
    """Return the kept client of a connection.

    Args:
        connection: a CustomConnection.
        deployment: name of a deployment to call directly; empty for the connection's own.

    Raises:
        ConfigError: a field of the connection is missing or wrong.
    """
    settings = read_settings(connection)
    return _clients.get(replace(settings, deployment=deployment) if deployment else settings)


def ask_llm(
    connection: Any,
    prompt: PromptTemplate,
    *,
    deployment_name: str = "",
    model: str = "",
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int | None = None,
    stop: list[Any] | None = None,
    seed: int | None = None,
    **others: Any,
) -> str:
    """Return the answer to a chat prompt: the tool of llm nodes, without promptflow-tools.

    Args:
        connection: a CustomConnection, or an OpenAIConnection or AzureOpenAIConnection of promptflow.
        prompt: jinja2 chat prompt.
        deployment_name: the deployment of an AzureOpenAIConnection.
        model: the model of another connection; empty for that of the connection.
        temperature, top_p, max_tokens, stop, seed: generation parameters.
        others: `REFUSED_INPUTS`, `PASSED_INPUTS`, and the variables of the prompt.
    """
    with promptflow_errors():
        for name in REFUSED_INPUTS:
            if others.pop(name, None):
                hint = "Remove it, or run the flow with promptflow-tools."
                raise ConfigError(f"llm nodes do not have the input `{name}` here", hint=hint)
        passed = {name: others.pop(name, None) for name in PASSED_INPUTS}
        params = Params(
            max_new_tokens=max_tokens,
            temperature=temperature,
            top_p=None if top_p == 1 else top_p,
            stop=stop or None,
            seed=seed,
            extra={name: value for name, value in passed.items() if value},
        )
        settings = read_settings(llm_fields(connection))
        is_azure = type(connection).__name__ == AZURE_OPENAI
        name = deployment_name if is_azure else model
        client = _clients.get(replace(settings, model=name or settings.model))
        return traced_chat(client, parse_prompt(str(prompt), others), params, 0).text


def llm_fields(connection: Any) -> Any:
    """Return a connection of promptflow's OpenAI types as the fields of a CustomConnection.

    Contract: "Azure OpenAI in Microsoft Foundry Models v1 API". Its path `/openai/v1` takes the key as a
    bearer token, as OpenAI does.

    Raises:
        ConfigError: the connection has an organization, which the client cannot send.
    """
    kind = type(connection).__name__
    if kind not in (AZURE_OPENAI, OPENAI):
        return connection
    if kind == AZURE_OPENAI:
        url = f"{str(connection.api_base).rstrip('/')}/openai/v1"
    else:
        if getattr(connection, "organization", None):
            hint = "Remove it, and use a key of that organization, or run the flow with promptflow-tools."
            raise ConfigError(
                "the field `organization` of a connection is not used here", hint=hint
            )
        url = str(connection.base_url or "https://api.openai.com/v1").rstrip("/")
    fields = {"endpoint": f"{url}/chat/completions", "contract": "openai"}
    key = connection.api_key
    return {**fields, **({"key": key} if key else {"auth": "entra"})}


def started_stream(
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
def judge(
    connection: CustomConnection, deployment: str, context_window: int, logprobs: str
) -> Iterator[Ask]:
    """Yield a function that asks the judge, within prompt flow's time limit for a line."""
    if logprobs not in LOGPROBS:
        raise ConfigError(f"logprobs is {logprobs!r}, but must be {' or '.join(LOGPROBS)}")
    client = client_of(connection, deployment)
    deadline = Deadline(JUDGE_DEADLINE_S)

    def ask(messages: list[Message], params: Params) -> Reply:
        deadline.check()
        limits = client.settings.limits
        limits = replace(limits, deadline_s=min(limits.deadline_s, deadline.left))
        # A single turn must fit the window. Several turns are a second attempt, which must stay complete.
        window = context_window if len(messages) == 1 else 0
        return traced_chat(client, messages, params, window, limits)

    if logprobs == "off" or client.contract != "openai" or client in _without_logprobs:
        yield ask
        return
    with_logprobs = AskWithLogprobs(ask)
    try:
        yield with_logprobs
    finally:
        if with_logprobs.refused:
            _without_logprobs.add(client)


def traced_chat(
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

    traced_as_llm(complete)(chat, params.max_new_tokens, params.temperature)
    return replies[0]


def read_schema(schema: object) -> Any:
    """Return the schema that a tool's input `schema` describes; None for an empty input.

    Args:
        schema: a JSON schema as an object or as JSON text, or the name of a JSON file in the flow's
            folder.

    Raises:
        ConfigError: the file does not exist, is outside the flow's folder, or is not JSON.
    """
    if not isinstance(schema, str):
        return schema or None
    if schema.lstrip().startswith("{"):
        return _json_schema(schema, "the text of the input `schema`")
    if not schema:
        return None
    path = PurePath(schema)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"the schema file {schema!r} must be inside the flow's folder")
    file = (current_flow_folder() or _folder_of_flow()) / path
    if not file.is_file():
        raise ConfigError(f"the schema file {schema!r} does not exist in the flow's folder")
    try:
        return _json_schema(file.read_text(encoding="utf-8"), f"the schema file {schema!r}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the schema file {schema!r} cannot be read: {error}") from None


def _folder_of_flow() -> Path:
    """Return the folder of the flow outside this package's engine.

    Prompt flow works in the folder and puts it on `sys.path`, as exported flows do.
    """
    folders = [Path.cwd(), *map(Path, sys.path)]
    flows = (f for f in folders if any((f / name).is_file() for name in FLOW_FILES))
    return next(flows, folders[0])


def _json_schema(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON: {error}") from None


def detail(reply: Reply | None, error: Phi3Error | None) -> dict[str, Any]:
    """Return a reply or an error as the output of `phi3_chat_detail`."""
    text = error.text if isinstance(error, InvalidAnswerError) else ""
    answer: Any = (reply.text if reply.parsed is None else reply.parsed) if reply else text
    usage = reply.usage.as_dict() if reply and reply.usage else None
    return {
        "answer": answer,
        "usage": usage,
        "latency_s": round(reply.latency_s, 4) if reply else None,
        **{name: getattr(reply, name, None) for name in REPLY_FIELDS},
        "request_id": reply.request_id if reply else error and error.request_id,
        "error": error.as_dict() if error else None,
    }


@contextmanager
def promptflow_errors() -> Iterator[None]:
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
