"""JSON schemas of answers and of tool arguments: checks of the schemas, and validation of values.

The package jsonschema-rs (extra `schemas`) validates. Its regular expressions take linear time and have
neither look-around nor back-references, so that no pattern of a schema can hang a program. A reference to
another document is never loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import ConfigError
from .schema_references import check_references
from .wire_json import parse_json

MAX_DEPTH = 64  # levels of a schema
MAX_VALUES = 20_000  # values in a schema, at all levels
MAX_CHARACTERS = 200_000  # of a schema's JSON
MAX_PATTERN_BYTES = 1 << 20  # memory of a compiled regular expression
MAX_PROBLEMS = 5  # problems of a value that are reported
PROBLEM_LIMIT = 200  # characters of a reported problem
SEARCHED_LIMIT = 4096  # characters of a problem that are searched for the key before that
CACHED_VALIDATORS = 64
_NAME_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\r?\n(.*?)```", re.DOTALL)


class ProblemsError(ValueError):
    """A value does not fit a schema; the text says where and why, in one line."""


@dataclass(frozen=True)
class AnswerFormat:
    """The form that an answer must have.

    Attributes:
        wire: the value of `response_format` in OpenAI's "Chat completions" reference.
        schema: the JSON schema, or None for any JSON object.
        model: class of pydantic that makes the parsed answer, or None.
    """

    wire: Mapping[str, Any]
    schema: Mapping[str, Any] | None = None
    model: Any = None

    def parse(self, text: str, redact: Callable[[str], str] = str) -> Any:
        """Return the value in an answer.

        Args:
            text: the answer.
            redact: function that returns a text without the endpoint's key, for the problems.

        Raises:
            ProblemsError: the answer is not JSON, or its value does not fit.
        """
        value = find_json(text)
        if self.model is not None:
            return _validate_with_model(self.model, value, redact)
        if self.schema is not None:
            validate(value, self.schema, redact)
        elif not isinstance(value, dict):
            raise ProblemsError(f"the answer is {describe(value)}, not a JSON object")
        return value


def read_answer_format(value: Any) -> AnswerFormat | None:
    """Return the form that `response_format` describes; None for text.

    Args:
        value: a JSON schema, a class of pydantic, `"json_object"`, or the value of OpenAI's
            `response_format`.

    Raises:
        ConfigError: it is none of these, or the schema is not valid; the message names the field.
    """
    where = "response_format"
    if value in (None, "text") or value == {"type": "text"}:
        return None
    if value == "json_object" or value == {"type": "json_object"}:
        return AnswerFormat({"type": "json_object"})
    if _is_pydantic_model(value):
        return _format_of_model(value, where)
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where} is {describe(value)}, but must be a JSON schema",
            hint='Give a JSON schema, a class of pydantic, or "json_object".',
        )
    if value.get("type") == "json_schema":
        definition = value.get("json_schema")
        if not isinstance(definition, Mapping) or not isinstance(definition.get("name"), str):
            raise ConfigError(f"{where}.json_schema must be an object with a `name` and a `schema`")
        check_schema(definition.get("schema"), f"{where}.json_schema.schema")
        return AnswerFormat(dict(value), definition["schema"])
    check_schema(value, where)
    return AnswerFormat(_wire(str(value.get("title") or "answer"), value), value)


def check_schema(schema: Any, where: str) -> None:
    """Check that a value is a JSON schema that can be used.

    Args:
        schema: the value.
        where: name of its field, for errors.

    Raises:
        ConfigError: it is not a valid schema, is too large, or the package jsonschema-rs is missing.
    """
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where} is {describe(schema)}, but must be a JSON schema, an object")
    _check_size(schema, where)
    try:
        _validator(_key(schema))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where} is not a valid JSON schema: {_problem(error)}",
            hint="Patterns must not use look-around or back-references; a `$ref` must be internal.",
        ) from None


def validate(value: Any, schema: Mapping[str, Any], redact: Callable[[str], str] = str) -> None:
    """Check a value against a schema that `check_schema` has accepted.

    Args:
        value: the value.
        schema: the schema.
        redact: function that returns a text without the endpoint's key, for the problems.

    Raises:
        ProblemsError: the value does not fit; the text contains the first `MAX_PROBLEMS` problems.
    """
    problems = []
    try:
        for error in _validator(_key(schema)).iter_errors(value):
            problems.append(_problem(error, redact))
            if len(problems) == MAX_PROBLEMS:
                break
    except ValueError as error:  # a value that is nested too deeply
        problems = [_problem(error, redact)]
    if problems:
        raise ProblemsError("; ".join(problems))


def find_json(text: str) -> Any:
    """Return the JSON value of an answer: all of the text, a fenced block, or the first object or list.

    Raises:
        ProblemsError: the text contains no complete JSON value.
    """
    fenced = _FENCE.search(text) if "```" in text else None
    for candidate in (text, fenced[1] if fenced else ""):
        with suppress(ValueError):
            return parse_json(candidate)
    start = next((index for index, character in enumerate(text) if character in "{["), None)
    if start is not None:
        with suppress(ValueError, RecursionError):
            _, end = json.JSONDecoder().raw_decode(text, start)
            return parse_json(text[start:end])
    raise ProblemsError("the answer is not JSON")


def describe(value: Any) -> str:
    """Return what kind of value a value is, in words."""
    kinds = {
        type(None): "null",
        str: "a text",
        bool: "a boolean",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), f"of type {type(value).__name__}")


def _wire(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI allows these characters and this length only.
    name = _NAME_CHARACTER.sub("_", name)[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


# -- pydantic, which this package does not import ---------------------------------------------------


def _is_pydantic_model(value: Any) -> bool:
    return isinstance(value, type) and hasattr(value, "model_json_schema")


def _format_of_model(model: Any, where: str) -> AnswerFormat:
    try:
        schema = model.model_json_schema()
    except Exception as error:  # pydantic has several classes for this
        raise ConfigError(
            f"{where}: {model.__name__} has no JSON schema: {_problem(error)}"
        ) from None
    _check_size(schema, where)
    return AnswerFormat(_wire(model.__name__, schema), schema, model)


def _validate_with_model(model: Any, value: Any, redact: Callable[[str], str]) -> Any:
    try:
        return model.model_validate(value)
    except ValueError as error:  # pydantic's ValidationError is one
        errors = getattr(error, "errors", None)
        if errors is None:
            raise ProblemsError(_problem(error, redact)) from None
        problems = [_located(item["loc"], item["msg"], redact) for item in errors()[:MAX_PROBLEMS]]
        raise ProblemsError("; ".join(problems)) from None


# -- jsonschema-rs ---------------------------------------------------------------------------------


def _check_size(schema: Mapping[str, Any], where: str) -> None:
    """Refuse what is too large, nested too deeply or not JSON, before any recursive function sees it."""
    values, characters, level, depth = 0, 0, [schema], 0
    while level:
        depth += 1
        values += len(level)
        characters += sum(len(value) for value in level if isinstance(value, str))
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where} has more than {MAX_DEPTH} nested levels")
        if values > MAX_VALUES or characters > MAX_CHARACTERS:
            raise ConfigError(
                f"{where} has more than {MAX_VALUES} values or {MAX_CHARACTERS} characters"
            )
        level = [item for value in level for item in _items(value)]


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    return list(value) if isinstance(value, (list, tuple)) else []


def _key(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, allow_nan=False, default=_as_dict)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


@lru_cache(CACHED_VALIDATORS)
def _validator(schema_json: str) -> Any:
    try:
        import jsonschema_rs
    except ImportError:
        raise ConfigError(
            "a JSON schema was given, but the package jsonschema-rs is not installed",
            hint="Install it, or this package with its extra `schemas`.",
        ) from None
    options = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES)
    schema = json.loads(schema_json)
    check_references(schema)
    try:
        return jsonschema_rs.validator_for(
            schema, retriever=_refuse_to_load, pattern_options=options
        )
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)) from None


def _refuse_to_load(uri: str) -> Any:
    raise ValueError(f"{uri} is another document, which is not loaded")


def _problem(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """Return an error of a validator in one line, with the place of the value."""
    message = getattr(error, "message", None) or str(error)
    return _located(getattr(error, "instance_path", ()), str(message), redact)


def _located(path: Any, message: str, redact: Callable[[str], str]) -> str:
    location = ".".join(map(str, path))
    text = " ".join(f"`{location}`: {message}".split() if location else message.split())
    text = redact(text[:SEARCHED_LIMIT])  # first, because a part of the key could not be found
    return text if len(text) <= PROBLEM_LIMIT else f"{text[:PROBLEM_LIMIT]}…"
