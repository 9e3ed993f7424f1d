"""Agents: a model calls local Python functions until it can answer.

answer = run_agent(connection, [{"role": "user", "content": question}], [find_order])
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .client import Message, Params, ToolCall, tool_span
from .errors import ConfigError
from .flow import package_trace
from .pf_calls import client_of, promptflow_errors, traced_chat

DEFAULT_MAX_STEPS = 6
DEFAULT_MAX_CALLS = 32
ANSWERED, MAX_STEPS = "answered", "max_steps"  # values of `AgentAnswer.ended`
RESULT_LIMIT = 8000  # characters of a function's result that the model reads
_NOT_CALLED = "The function was not called: the limit of calls is reached."
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Step:
    """One call of a function by the model.

    Attributes:
        number: number of the model's answer that contains the call, from 1.
        tool: name of the function.
        arguments: its arguments.
        result: the result as the model reads it, or the text of the error.
        failed: whether the function raised an exception.
    """

    number: int
    tool: str
    arguments: dict[str, Any]
    result: str
    failed: bool


@dataclass(frozen=True)
class AgentAnswer:
    """The answer of an agent.

    Attributes:
        answer: text of the answer.
        ended: `answered`, or `max_steps` if the model was made to answer after the last allowed step or
            call.
        steps: the calls of functions, in order.
    """

    answer: str
    ended: str
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as the output of a flow's node."""
        return asdict(self) | {"steps": [asdict(step) for step in self.steps]}


def run_agent(
    connection: Any,
    messages: Sequence[Message],
    functions: Iterable[Callable[..., Any]],
    *,
    max_steps: int = DEFAULT_MAX_STEPS,
    max_calls: int = DEFAULT_MAX_CALLS,
    params: Params = Params(temperature=0, max_new_tokens=256),
    context_window: int = 4096,
) -> AgentAnswer:
    """Answer a question with the help of local functions.

    Each answer of the model with calls is a step. After the last allowed step or call the model has to
    answer without functions, so that there are at most `max_steps` + 1 answers. The calls of functions
    are spans in Prompt flow's traces and in OpenTelemetry.

    Args:
        connection: a CustomConnection.
        messages: the chat, with the question at its end.
        functions: the functions; see `tool_definition`.
        max_steps: number of answers with calls, at least 1.
        max_calls: number of calls of functions in all steps, at least 1.
        params: generation parameters without `tools`.
        context_window: tokens that prompt and answer share; the oldest steps are left out to fit.

    Raises:
        Phi3Error: the endpoint failed, or an answer is not valid; in Prompt flow as its own exception.
    """
    by_name = {function.__name__: function for function in functions}
    with promptflow_errors():
        _check_limit("max_steps", max_steps)
        _check_limit("max_calls", max_calls)
        client = client_of(connection)
        tools = [tool_definition(function) for function in by_name.values()]
        chat = list(messages)
        steps: list[Step] = []
        for number in range(1, max_steps + 1):
            reply = traced_chat(client, chat, _with_tools(params, tools), context_window)
            if not reply.tool_calls:
                return AgentAnswer(reply.text, ANSWERED, tuple(steps))
            chat.append(reply.message)
            for call in reply.tool_calls:
                result = _NOT_CALLED
                if len(steps) < max_calls:
                    steps.append(_run_step(number, call, by_name[call.name]))
                    result = steps[-1].result
                chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
            if len(steps) >= max_calls:
                break
        reply = traced_chat(client, chat, _with_tools(params, tools, "none"), context_window)
        return AgentAnswer(reply.text, MAX_STEPS, tuple(steps))


def _check_limit(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}, but must be a whole number of at least 1")


def tool_definition(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function as an item of `tools`.

    The description is the first paragraph of its docstring. A parameter may be annotated with `str`,
    `int`, `float`, `bool`, `list`, `dict`, `Literal` and their optional forms.

    Raises:
        ConfigError: a parameter has no such annotation, or an annotation cannot be evaluated; the message
            names it.
    """
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"the annotations of {function.__name__} cannot be evaluated: {error}",
            hint="Import the types at the top of the function's module.",
        ) from None
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        schema = _schema_of(hints.get(name))
        if schema is None or parameter.kind not in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            what = f"the parameter {name!r} of {function.__name__} cannot be an argument of a tool"
            raise ConfigError(
                what, hint="Annotate it with str, int, float, bool, list, dict or Literal."
            )
        properties[name] = schema
        if parameter.default is parameter.empty:
            required.append(name)
    description = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    definition = {"name": function.__name__, "description": description, "parameters": parameters}
    return {"type": "function", "function": definition}


def _schema_of(annotation: Any) -> dict[str, Any] | None:
    """Return the schema of an annotation; None if it has none."""
    if isinstance(annotation, type) and annotation in _JSON_TYPES:
        return {"type": _JSON_TYPES[annotation]}
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        items = _schema_of(arguments[0]) if arguments else {}
        return None if items is None else {"type": "array", "items": items}
    if origin is dict:
        return {"type": "object"}
    if origin in (Union, getattr(types, "UnionType", Union)):
        options = [_schema_of(option) for option in arguments if option is not type(None)]
        if any(option is None for option in options):
            return None
        return (
            {"anyOf": [*options, {"type": "null"}]}
            if type(None) in arguments
            else {"anyOf": options}
        )
    return None


def _with_tools(params: Params, tools: list[dict[str, Any]], choice: str | None = None) -> Params:
    return replace(params, tools=tools, tool_choice=choice) if tools else params


def _run_step(number: int, call: ToolCall, function: Callable[..., Any]) -> Step:
    try:
        with tool_span(call.name, call.id):
            result, failed = _result_text(_call_tool(call.name, call.arguments, function)), False
    except Exception as error:  # the model reads it, and may try again
        result, failed = f"{type(error).__name__}: {error}", True
    return Step(number, call.name, call.arguments, result[:RESULT_LIMIT], failed)


def _call_tool(name: str, arguments: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    """Call a function inside a trace with its name, whose inputs are its arguments."""

    def call(**kwargs: Any) -> Any:
        return function(**kwargs)

    call.__name__ = call.__qualname__ = name
    return package_trace(call)(**arguments)


def _result_text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return json.dumps(result, ensure_ascii=False, default=str)
