"""Reads requests in the three contracts of a Phi-3 endpoint. Pure functions, no I/O.

Sources: "Deploy MLflow models to online endpoints" (a list of texts), the model catalog's
chat-completion schema (`input_string` with messages), and "OpenAI API reference: chat completions".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from answer_formats import AnswerFormat, read_answer_format
from conversations import Message, check_unicode, read_conversation, read_messages
from parameters import (
    LIMIT_FIELDS,
    ScoringError,
    describe,
    read_parameters,
    refuse,
    refuse_unknown,
)
from sampling import GenerationParams

Contract = Literal["list", "catalog", "openai"]
# Texts of one request. While more of them wait than `engine.MAX_WAITING`, all other requests are refused.
MAX_TEXTS = 256
DEFAULT_MAX_NEW_TOKENS = 128  # of the contracts "list" and "catalog"
SHAPES = (
    'expected {"input_data": ["text", ...], "params": {...}},'
    ' {"input_data": {"input_string": [{"role": ..., "content": ...}], "parameters": {...}}}'
    ' or {"messages": [{"role": ..., "content": ...}]}'
)


@dataclass(frozen=True)
class ScoringRequest:
    """A valid request.

    Attributes:
        contract: the contract of the request, which its answer follows.
        prompts: texts ("list"), or the messages of one conversation ("catalog" and "openai").
        params: how to generate the answers.
        return_full_text: whether an answer of the "list" contract starts with its prompt.
        stream: whether the answer is sent as server-sent events.
        include_usage: whether a stream ends with token counts.
        choices: number of answers to one conversation ("openai").
        model: name of the model that the client expects; None for any.
        answer_format: the form that the answer must have.
        limit_field: name by which the client set the number of new tokens, for error messages.
    """

    contract: Contract
    prompts: list[str] | list[list[Message]]
    params: GenerationParams
    return_full_text: bool = False
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    model: str | None = None
    answer_format: AnswerFormat = AnswerFormat()
    limit_field: str = LIMIT_FIELDS[0]


def read_request(payload: Any) -> ScoringRequest:
    """Detect the contract of a request and read it.

    Raises:
        ScoringError: status 400, with the name of the field that is wrong.
    """
    if not isinstance(payload, dict):
        refuse(f"the body is {describe(payload)}; {SHAPES}")
    if "messages" in payload:
        settings = {name: value for name, value in payload.items() if name != "messages"}
        return _make_request("openai", [read_conversation(payload["messages"])], settings)
    if "input_data" not in payload:
        refuse(f"the body has neither input_data nor messages; {SHAPES}")
    refuse_unknown(payload, ("input_data", "params"))
    data = payload["input_data"]
    if isinstance(data, dict):
        return _read_input_string(data, payload)
    return _make_request("list", _texts(data, "input_data"), _object(payload, "params"))


def wants_stream(payload: Any) -> bool:
    """Return whether a request asks for server-sent events. An invalid request does not."""
    try:
        return read_request(payload).stream
    except ScoringError:
        return False


def refuse_list_stream() -> NoReturn:
    """Raise the error for a stream in the "list" contract, which has no events."""
    refuse("a list of texts cannot be streamed; send messages instead", "stream")


def _read_input_string(data: dict[str, Any], payload: dict[str, Any]) -> ScoringRequest:
    if "input_string" not in data:
        refuse(f"input_data has no input_string; {SHAPES}", "input_data")
    refuse_unknown(data, ("input_string", "parameters"), "input_data.")
    content = data["input_string"]
    settings = {**_object(payload, "params"), **_object(data, "parameters")}
    # Some samples put the list of messages into another list.
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], list):
        content = content[0]
    if isinstance(content, list) and any(isinstance(item, dict) for item in content):
        return _make_request("catalog", [read_messages(content, "input_string")], settings)
    # Azure's no-code scoring script also accepts texts here, and answers with a list.
    return _make_request("list", _texts(content, "input_string"), settings)


def _make_request(contract: Contract, prompts: Any, settings: Mapping[str, Any]) -> ScoringRequest:
    values = read_parameters(settings)
    answer_format = read_answer_format(values)
    _check_combinations(contract, values, answer_format)
    return ScoringRequest(
        contract=contract,
        prompts=prompts,
        params=_generation_params(values, contract),
        return_full_text=values["return_full_text"],
        stream=values["stream"],
        include_usage=bool(values["stream_options"].get("include_usage")),
        choices=values["n"],
        model=values["model"],
        answer_format=answer_format,
        limit_field=next((name for name in LIMIT_FIELDS if name in settings), LIMIT_FIELDS[0]),
    )


def _generation_params(values: dict[str, Any], contract: Contract) -> GenerationParams:
    limit = values["max_new_tokens"]
    if limit is None and contract != "openai":
        limit = DEFAULT_MAX_NEW_TOKENS
    temperature = values["temperature"]
    # Without a request for sampling, the same question always has the same answer.
    sample = values["do_sample"]
    if sample is None:
        sample = temperature is not None
    return GenerationParams(
        max_new_tokens=limit,
        do_sample=bool(sample and temperature != 0),
        temperature=1.0 if temperature is None else temperature or 1.0,
        top_p=values["top_p"],
        top_k=max(values["top_k"], 0),
        repetition_penalty=values["repetition_penalty"],
        frequency_penalty=values["frequency_penalty"],
        presence_penalty=values["presence_penalty"],
        logit_bias=values["logit_bias"],
        logprobs=values["top_logprobs"] if values["logprobs"] else None,
        stop=values["stop"],
        seed=values["seed"],
    )


def _check_combinations(
    contract: Contract, values: Mapping[str, Any], answer_format: AnswerFormat
) -> None:
    """Refuse parameters that the contract has no place for in its answer."""
    if contract == "list" and values["stream"]:
        refuse_list_stream()
    if contract != "list" and values["return_full_text"]:
        refuse("return_full_text is supported for texts only, not for messages", "return_full_text")
    for name, asked in (
        ("response_format", answer_format.schema is not None),
        ("tools", bool(values["tools"])),
        ("n", values["n"] > 1),
        ("logprobs", values["logprobs"]),
    ):
        if asked and contract != "openai":
            refuse(f"{name} is supported in OpenAI's contract only", name)
        if asked and values["stream"] and name in ("n", "logprobs"):
            refuse(f"{name} cannot be streamed", name)
    if values["stop"] and not answer_format.is_free:
        refuse("stop cannot be used with JSON or tools: it could cut the answer", "stop")
    if values["top_logprobs"] and not values["logprobs"]:
        refuse("top_logprobs needs logprobs: true", "top_logprobs")


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        refuse(f"{name} must be an object, not {describe(value)}", name)
    return value


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        refuse(f"{name} must be an array of strings or of messages; {SHAPES}", name)
    if len(texts) > MAX_TEXTS:
        refuse(f"{name} has {len(texts)} texts; one request may have up to {MAX_TEXTS}", name)
    return [check_unicode(text, name) for text in texts]
