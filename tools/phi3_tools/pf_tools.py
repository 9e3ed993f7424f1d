"""The package's tools for flows, which run in Prompt flow and in the engine of `phi3_tools.flow`.

A tool makes messages from its inputs, calls the client, and returns the reply in the form that prompt
flow counts, streams and reports.
"""

# This module does not import promptflow, which takes seconds. It must not import annotations from
# __future__ either: promptflow compares a tool's annotations with the class PromptTemplate, and would get
# its name as text. So the annotations are evaluated, and must be valid in Python 3.9, which the compute
# sessions of Prompt flow have.
# ruff: noqa: UP045
import logging
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any, Optional

from .client import Message, Params, build_chat, parse_prompt
from .errors import ConfigError, Phi3Error
from .evaluation import RUBRICS, JudgeOptions, judge_answer, judge_pair, select_rubrics
from .flow import CustomConnection, PromptTemplate
from .flow import package_tool as tool
from .pf_calls import (
    client_of,
    detail,
    judge,
    promptflow_errors,
    read_schema,
    started_stream,
    traced_chat,
)

# Prompt flow's executor reads a connection's secrets as attributes, and then warns its user of doing so.
logging.getLogger("promptflow.core._connection").addFilter(
    lambda record: "connection.secrets[key]" not in str(record.msg)
)

DEFAULT_MAX_NEW_TOKENS = 128
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 1.0
DEFAULT_CONTEXT_WINDOW = 4096


# -- tools -----------------------------------------------------------------------------------------


@tool(streaming_option_parameter="stream")
def phi3_chat(
    connection: CustomConnection,
    question: str = "",
    chat_history: Optional[list[Any]] = None,
    messages: Optional[list[Any]] = None,
    system_prompt: str = "",
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: Optional[list[Any]] = None,
    seed: Optional[int] = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
    schema: object = None,
    stream: bool = False,
) -> Any:
    """Ask a Phi-3 endpoint; return the answer as text, or as a stream if prompt flow serves a stream.

    With a schema, the answer is the object that fits it, which is not streamed.
    """
    chat = _chat(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed, schema)
    return _answer(connection, chat, params, context_window, deployment, stream)


@tool
def phi3_chat_detail(
    connection: CustomConnection,
    question: str = "",
    chat_history: Optional[list[Any]] = None,
    messages: Optional[list[Any]] = None,
    system_prompt: str = "",
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: Optional[list[Any]] = None,
    seed: Optional[int] = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
    schema: object = None,
) -> dict[str, Any]:
    """Ask a Phi-3 endpoint; return a dict of answer, usage, latency, …

    With a schema, `answer` is the object that fits it. An error of the endpoint is reported in `error`
    and does not fail the line; nor does an answer that does not fit the schema, whose text is then the
    `answer`. A wrong connection or argument fails the line.
    """
    chat = _chat(question, chat_history, messages, system_prompt)
    params = _params(max_new_tokens, temperature, top_p, stop, seed, schema)
    with promptflow_errors():
        try:
            reply = traced_chat(client_of(connection, deployment), chat, params, context_window)
        except ConfigError:
            raise
        except Phi3Error as error:
            return detail(None, error)
    return detail(reply, None)


@tool(streaming_option_parameter="stream")
def phi3_prompt(
    connection: CustomConnection,
    prompt: PromptTemplate,
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
    temperature: float = DEFAULT_TEMPERATURE,
    top_p: float = DEFAULT_TOP_P,
    stop: Optional[list[Any]] = None,
    seed: Optional[int] = None,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    deployment: str = "",
    stream: bool = False,
    **kwargs: Any,
) -> Any:
    """Ask a Phi-3 endpoint with a jinja2 chat prompt; the node's other inputs are its variables."""
    with promptflow_errors():
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
    with promptflow_errors():
        options = JudgeOptions(samples, temperature, seed, max_new_tokens)
        selected = select_rubrics(rubrics)
        with judge(connection, deployment, context_window, logprobs) as ask:
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
    with promptflow_errors():
        options = JudgeOptions(max_new_tokens=max_new_tokens)
        criterion, *further = select_rubrics(rubric)
        if further:
            raise ConfigError(f"a comparison uses one rubric, but `rubric` is {rubric!r}")
        with judge(connection, deployment, context_window, "off") as ask:
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


def _chat(question: str, chat_history: Any, messages: Any, system_prompt: str) -> list[Message]:
    with promptflow_errors():
        return build_chat(question, chat_history, messages, system_prompt)


def _answer(
    connection: CustomConnection,
    chat: list[Message],
    params: Params,
    context_window: int,
    deployment: str,
    stream: bool,
) -> Any:
    with promptflow_errors():
        client = client_of(connection, deployment)
        if params.response_format is not None:
            return traced_chat(client, chat, params, context_window).parsed
        if stream:
            return started_stream(client, chat, params, context_window)
        return traced_chat(client, chat, params, context_window).text


def _params(
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    stop: Any,
    seed: Optional[int],
    schema: object = None,
) -> Params:
    with promptflow_errors():
        return Params(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=None if top_p == DEFAULT_TOP_P else top_p,
            stop=stop or None,
            seed=seed,
            response_format=read_schema(schema),
        )


def _fields(**texts: Any) -> dict[str, str]:
    """Return a line's fields as texts; data may contain null or numbers."""
    return {name: "" if text is None else str(text) for name, text in texts.items()}
