"""Checks of a client's JSON schema before it is compiled: its size, and keywords that have no effect.

llguidance, which compiles schemas, refuses most of what it cannot honour. The checks here come first
because they are cheap and name the place in the schema. Sources: "JSON Schema: A Media Type for
Describing JSON Documents" (Draft 2020-12) and "JSON schema -> llguidance converter".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from parameters import describe, refuse, shorten

MAX_DEPTH = 100  # levels of objects and arrays; llguidance reads at most 128
MAX_VALUES = 10_000  # objects, arrays and other values of a schema
MAX_PROPERTIES = 1_000  # of all objects together: the allowed tokens of a key take time for each
# Of all objects together. llguidance 1.9.1 fails after 512 keys that can start at the same place.
MAX_OPTIONAL = 400
MAX_PATTERNS = 64  # regular expressions of a schema, formats included
# Regular expressions of a schema that has schemas which must match together. The time to compile them can
# double with each: llguidance took 2 s for 16 of them, and did not end for 20.
MAX_INTERSECTED_PATTERNS = 8
# The smallest common multiple of all multipleOf of a schema: schemas that must match together need it.
# llguidance took 0.03 s for 9973, 0.6 s for 99999, and did not end in 25 s for 999983.
MAX_MULTIPLE = 10_000
MAX_DENOMINATOR = 10**12  # of a multipleOf as a fraction
MAX_BYTES = 256 * 1024  # of a schema as JSON
# A keyword that is not enforced would make an answer invalid without a sign of it.
NOT_SUPPORTED = frozenset({
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
    *("dependentRequired", "dependentSchemas", "dependencies", "propertyNames"),
    *("unevaluatedProperties", "unevaluatedItems", "additionalItems"),
    *("$dynamicRef", "$recursiveRef", "extends", "disallow", "divisibleBy"),
})  # fmt: skip
FORMATS = (
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
)
MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
COMBINING = ("allOf", "anyOf", "oneOf", "$ref")
# Beside one of COMBINING, these must match as well.
WITH_PATTERNS = frozenset({
    *("pattern", "format", "patternProperties", "properties", "items", "prefixItems"),
    *("additionalProperties", *COMBINING),
})  # fmt: skip
# Beside one of COMBINING, these do not change which properties an object has.
HARMLESS = frozenset({
    *("type", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$defs", "definitions", "$schema", "$id", "$comment"),
})  # fmt: skip
SCHEMAS = ("items", "prefixItems", "additionalProperties", "anyOf", "allOf", "oneOf")


@dataclass(frozen=True)
class _Part:
    """A value inside a schema.

    Attributes:
        path: name of the value, from the field of the request on.
        value: the value.
        depth: levels of objects and arrays above the value.
        kind: "schema", "map" (an object with a schema for each name) or "data".
    """

    path: str
    value: Any
    depth: int
    kind: str


def check_schema(schema: Any, name: str) -> None:
    """Refuse a schema that is too large, or has a keyword that cannot be honoured.

    Args:
        schema: the client's value.
        name: name of the schema's field in the request.

    Raises:
        ScoringError: status 400, with the path of the keyword.
    """
    if not isinstance(schema, dict):
        refuse(f"{name} must be a JSON schema (an object), not {describe(schema)}", name)
    properties = optional = patterns = 0
    has_intersection = False
    multiple: Fraction | None = None
    for part in _walk(schema, name, "schema"):
        # A "$ref" can name any value of the schema, also one that is not a schema by its place.
        if isinstance(part.value, dict):
            multiple = _common_multiple(multiple, part)
        if part.kind == "schema" and isinstance(part.value, dict):
            _check_keywords(part.value, part.path)
            properties += _size(part.value, "properties")
            optional += _count_optional(part.value)
            patterns += _size(part.value, "patternProperties")
            patterns += ("pattern" in part.value) + ("format" in part.value)
            has_intersection |= _is_intersection(part.value)
    if properties > MAX_PROPERTIES:
        refuse(f"{name} has {properties} properties; it may have up to {MAX_PROPERTIES}", name)
    if optional > MAX_OPTIONAL:
        refuse(
            f"{name} has {optional} properties that are not required; it may have up to {MAX_OPTIONAL}",
            name,
        )
    limit = MAX_INTERSECTED_PATTERNS if has_intersection else MAX_PATTERNS
    if patterns > limit:
        reason = ", because it has schemas that must match together" if has_intersection else ""
        refuse(
            f"{name} uses pattern, patternProperties and format {patterns} times;"
            f" it may have up to {limit}{reason}",
            name,
        )
    size = len(json.dumps(schema))
    if size > MAX_BYTES:
        refuse(f"{name} has {size} bytes; a schema may have up to {MAX_BYTES}", name)


def has_combined_schemas(schema: Any) -> bool:
    """Return whether a part of a schema limits the same object by several schemas."""
    return any(
        part.kind == "schema" and isinstance(part.value, dict) and _is_combined(part.value)
        for part in _walk(schema, "schema", "schema")
    )


def check_nesting(value: Any, name: str) -> None:
    """Refuse a JSON value that is nested too deeply or has too many parts. Raises ScoringError 400."""
    for _ in _walk(value, name, "data"):
        pass


def _walk(value: Any, name: str, kind: str) -> Iterator[_Part]:
    """Yield all parts of a value. Refuse one that is nested too deeply or has too many parts."""
    count = 0
    stack = [_Part(name, value, 1, kind)]
    while stack:
        part = stack.pop()
        count += 1
        if part.depth > MAX_DEPTH:
            refuse(f"{name} is nested more than {MAX_DEPTH} levels deep", name)
        if count > MAX_VALUES:
            refuse(f"{name} has more than {MAX_VALUES} values", name)
        yield part
        stack.extend(_children(part))


def _size(schema: Mapping[str, Any], keyword: str) -> int:
    value = schema.get(keyword)
    return len(value) if isinstance(value, dict) else 0


def _count_optional(schema: Mapping[str, Any]) -> int:
    properties = schema.get("properties")
    required = set(schema.get("required", ()))
    return len(properties.keys() - required) if isinstance(properties, dict) else 0


def _is_intersection(schema: Mapping[str, Any]) -> bool:
    """Return whether a value must match several schemas at once."""
    combining = [keyword for keyword in COMBINING if keyword in schema]
    branches = schema.get("allOf")
    has_branches = isinstance(branches, list) and len(branches) > 1
    return has_branches or (bool(combining) and len(schema.keys() & WITH_PATTERNS) > 1)


def _common_multiple(multiple: Fraction | None, part: _Part) -> Fraction | None:
    """Return the smallest common multiple of a number and a schema's multipleOf. Refuse a large one."""
    number = part.value.get("multipleOf")
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or number == 0 or (isinstance(number, float) and not math.isfinite(number)):
        return multiple
    value = abs(Fraction(number if isinstance(number, int) else Decimal(str(number))))
    common = value
    if multiple is not None:
        numerator = math.lcm(multiple.numerator, value.numerator)
        common = Fraction(numerator, math.gcd(multiple.denominator, value.denominator))
    if not (_is_small(value) and _is_small(common)):
        refuse(
            f"{part.path}.multipleOf is too large or has too many digits, alone or together with the"
            f" schema's other multipleOf: the limit of their common multiple is {MAX_MULTIPLE}",
            f"{part.path}.multipleOf",
        )
    return common


def _is_small(multiple: Fraction) -> bool:
    """Return whether a multiple is cheap to compile; 0.25 is as much work as 25."""
    if multiple.denominator > MAX_DENOMINATOR:
        return False
    while multiple.denominator > 1 and multiple <= MAX_MULTIPLE:
        multiple *= 10
    return multiple <= MAX_MULTIPLE


def _is_combined(schema: Mapping[str, Any]) -> bool:
    combining = [keyword for keyword in COMBINING if keyword in schema]
    if not combining:
        return False
    branches = schema.get("allOf", [])
    has_branches = not isinstance(branches, list) or len(branches) > 1
    is_alone = len(combining) == 1 and schema.keys() <= HARMLESS | {combining[0]}
    return "oneOf" in schema or has_branches or not is_alone


def _check_keywords(schema: Mapping[str, Any], path: str) -> None:
    for keyword in schema.keys() & NOT_SUPPORTED:
        refuse(f"{path} has the keyword {keyword}, which is not supported", f"{path}.{keyword}")
    if schema.get("format") not in (None, *FORMATS):
        known = ", ".join(FORMATS)
        refuse(
            f"{path}.format must be one of {known}, not {shorten(str(schema['format']))!r}",
            f"{path}.format",
        )
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        value = "a list with other values" if isinstance(required, list) else describe(required)
        refuse(f"{path}.required must be a list of strings, not {value}", f"{path}.required")
    fewest = schema.get("minProperties", 0)
    if isinstance(fewest, (int, float)) and fewest > max(len(required), 1):
        # The grammar does not know whether two of an object's other keys are the same.
        refuse(
            f"{path}.minProperties is supported only up to the number of required properties",
            f"{path}.minProperties",
        )


def _children(part: _Part) -> Iterator[_Part]:
    if isinstance(part.value, dict):
        items: Any = part.value.items()
    elif isinstance(part.value, list):
        items = enumerate(part.value)
    else:
        return
    for key, value in items:
        path = f"{part.path}[{key}]" if isinstance(key, int) else f"{part.path}.{shorten(key)}"
        yield _Part(path, value, part.depth + 1, _kind_of_child(part, key))


def _kind_of_child(part: _Part, key: str | int) -> str:
    if part.kind == "map" or (part.kind == "schema" and isinstance(key, int)):
        return "schema"
    if part.kind == "schema" and key in MAPS_OF_SCHEMAS:
        return "map"
    return "schema" if part.kind == "schema" and key in SCHEMAS else "data"
