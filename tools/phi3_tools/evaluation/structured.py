"""Scores of structured answers: JSON against a reference and a schema, and tool calls. Pure functions.

Values are equal as in JSON: 1 and 1.0 are equal, `true` and 1 are not. The order of an object's keys does
not count, that of a list does. Texts are compared exactly.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Union

from ..client import ProblemsError, check_schema, validate
from ..errors import ConfigError

MAX_DEPTH = 100  # levels of an answer; a deeper one is not counted as JSON
Path = tuple[Union[str, int], ...]  # noqa: UP007 - Python 3.9 imports it


class _NotJson:
    """The value of an answer that is not JSON."""


NOT_JSON = _NotJson()


# -- one line ----------------------------------------------------------------------------------------


def structured_scores(answer: Any, truth: Any, schema: Any = None) -> dict[str, float]:
    """Return every score of an answer that should be JSON, by name.

    Args:
        answer: text of the answer, or its value.
        truth: reference: its text, or its value.
        schema: JSON schema of the answer, as an object or its text; None or {} accepts every value.

    Raises:
        ConfigError: the reference is not JSON, the schema is not valid, or jsonschema-rs is not
            installed.
    """
    value, reference = parse_answer(answer), parse_answer(truth)
    if reference is NOT_JSON:
        raise ConfigError("ground_truth is not JSON", hint="Give an object, or its JSON as a text.")
    return {
        "valid_json": float(value is not NOT_JSON),
        "schema_match": schema_match(value, schema),
        "field_exact": field_exact(value, reference),
        "field_f1": field_f1(value, reference),
    }


def parse_answer(answer: Any) -> Any:
    """Return the value of an answer: a text is parsed as JSON, other values stay.

    Returns:
        The value, or `NOT_JSON` if the text is not JSON or has more than `MAX_DEPTH` levels. JSON has no
        NaN and no infinity, and nothing may stand before or after it but white space.
    """
    if not isinstance(answer, str):
        return answer if _depth_is_allowed(answer) else NOT_JSON
    try:
        value = json.loads(answer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return NOT_JSON
    return value if _depth_is_allowed(value) else NOT_JSON


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _depth_is_allowed(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for container in level for item in _children(container)]
        if not level:
            return True
    return False


def _children(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


# -- schema ------------------------------------------------------------------------------------------


def schema_match(value: Any, schema: Any) -> float:
    """Return 1.0 if a value is valid by a JSON schema, else 0.0.

    Args:
        value: value of an answer; `NOT_JSON` is never valid.
        schema: JSON schema, as an object or its text; None or {} accepts every value.

    Raises:
        ConfigError: the schema is not valid or refers to another document, or jsonschema-rs is not
            installed.
    """
    if schema in (None, "", {}):
        return float(value is not NOT_JSON)
    parsed = parse_answer(schema)
    check_schema(parsed if isinstance(parsed, Mapping) else schema, "schema")
    if value is NOT_JSON:
        return 0.0
    try:
        validate(value, parsed)
    except ProblemsError:
        return 0.0
    return 1.0


# -- fields ------------------------------------------------------------------------------------------


def field_exact(value: Any, truth: Any) -> float:
    """Return 1.0 if both values have the same fields with equal values, else 0.0."""
    return float(value is not NOT_JSON and canonical(value) == canonical(truth))


def field_f1(value: Any, truth: Any) -> float:
    """Return the harmonic mean of precision and recall over the fields, between 0 and 1.

    A field is a value without parts (a text, a number, `true`, `false`, `null`, an empty object or list),
    together with its path of keys and indices. A field is right if the other side has an equal value at
    the same path.
    """
    if value is NOT_JSON:
        return 0.0
    fields, expected = dict(_fields(value)), dict(_fields(truth))
    right = len(fields.items() & expected.items())
    return 2 * right / (len(fields) + len(expected))


def _fields(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield path and canonical value of each field."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _fields(part, (*path, key))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from _fields(part, (*path, index))
    else:
        yield path, canonical(value)


def canonical(value: Any) -> Any:
    """Return a value that can be hashed, and that is equal for equal JSON values only."""
    if isinstance(value, Mapping):
        return "object", frozenset((key, canonical(part)) for key, part in value.items())
    if isinstance(value, list):
        return "list", tuple(map(canonical, value))
    if isinstance(value, bool) or value is None:
        return "constant", value
    if isinstance(value, (int, float)):
        return "number", value
    return "text", value


# -- tool calls --------------------------------------------------------------------------------------


def tool_call_match(calls: Any, expected: Any) -> float:
    """Return 1.0 if an answer calls the expected tools with the expected arguments, else 0.0.

    The calls of one turn are independent of each other, so their order does not count. Turns do have an
    order, since the calls of a turn can depend on the results of the one before.

    Args:
        calls: calls of the answer: a list of calls for one turn, or a list of such lists for several
            turns. A call is `{"name": …, "arguments": …}`, or has these keys in `function` as OpenAI's
            calls do. The arguments are an object, or its JSON.
        expected: the expected calls, likewise; an empty list if no tool should be called.

    Raises:
        ConfigError: an expected call has no name, or arguments that are not an object.
    """
    turns, expected_turns = _turns(calls), _turns(expected)
    wanted = [[_call(call) for call in turn] for turn in expected_turns]
    if any(call is None for turn in wanted for call in turn):
        raise ConfigError(
            "an expected call has no name, or its arguments are not an object",
            hint='A call is {"name": "the tool", "arguments": {…}}.',
        )
    made = [[_call(call) for call in turn] for turn in turns]
    return float([Counter(turn) for turn in made] == [Counter(turn) for turn in wanted])


def _turns(calls: Any) -> list[list[Any]]:
    """Return the calls as turns; turns without calls are left out."""
    parsed = None if calls == "" else parse_answer(calls)
    items = parsed if isinstance(parsed, list) else [] if parsed is None else [parsed]
    turns = items if any(isinstance(item, list) for item in items) else [items]
    return [turn if isinstance(turn, list) else [turn] for turn in turns if turn]


def _call(call: Any) -> Any:
    """Return name and arguments of a call in a form that can be compared; None if it is malformed."""
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    arguments = call.get("arguments")
    value = parse_answer({} if arguments is None or arguments == "" else arguments)
    return (call["name"], canonical(value)) if isinstance(value, Mapping) else None
