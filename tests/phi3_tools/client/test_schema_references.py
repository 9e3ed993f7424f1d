"""References of schemas that would make validation hang, and references that are accepted."""

from __future__ import annotations

import pytest

from phi3_tools import ConfigError
from phi3_tools.client.schema_references import MAX_CHAIN, check_references
from phi3_tools.client.schemas import check_schema, validate


def doubling(levels, refer, anchor=False, keyword="allOf"):
    """Return a schema in which each level applies the next one twice."""
    definitions = {
        f"a{n}": {keyword: [refer(n + 1), refer(n + 1)], **({"$anchor": f"a{n}"} if anchor else {})}
        for n in range(levels)
    }
    last = {"type": "object", **({"$anchor": f"a{levels}"} if anchor else {})}
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{levels}": last}}


def by_pointer(n):
    return {"$ref": f"#/$defs/a{n}"}


@pytest.mark.parametrize(
    "schema",
    [
        doubling(40, by_pointer),
        doubling(40, by_pointer, keyword="oneOf"),
        doubling(40, lambda n: {"$ref": f"#/%24defs/%61{n}"}),
        doubling(40, lambda n: {"$ref": f"#a{n}"}, anchor=True),
        doubling(40, lambda n: {"not": {"if": by_pointer(n)}}),
        {"$id": "https://example.test/s", **doubling(40, lambda n: {"$ref": f"s#/$defs/a{n}"})},
        {"properties": {"a": {"$id": "https://example.test/s", **doubling(40, by_pointer)}}},
    ],
)
def test_references_that_would_hang_are_refused(schema):
    with pytest.raises(ConfigError, match="f is not a valid JSON schema: its references visit"):
        check_schema(schema, "f")


def test_a_long_chain_is_refused():
    length = MAX_CHAIN + 1
    definitions = {f"a{n}": by_pointer(n + 1) for n in range(length)}
    with pytest.raises(ValueError, match="a chain of more than"):
        check_references({"$ref": "#/$defs/a0", "$defs": definitions})


def test_too_many_possible_targets_are_refused():
    parts = [{"$id": f"s{n}"} for n in range(1000)] + [{"$ref": "#/$defs/a"}] * 1000
    with pytest.raises(ValueError, match="too many references"):
        check_references({"properties": {str(n): dict(part) for n, part in enumerate(parts)}})


@pytest.mark.parametrize(
    "schema",
    [
        doubling(10, by_pointer),
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"allOf": [{"$ref": "#/$defs/a"}, True], "$defs": {"a": {"anyOf": [{"type": "object"}]}}},
    ],
)
def test_other_references_are_accepted(schema):
    check_schema(schema, "f")
    validate({}, schema)


def test_fields_that_share_definitions_are_accepted():
    definitions = {
        f"a{n}": {"type": "object", "properties": {"x": by_pointer(n + 1), "y": by_pointer(n + 1)}}
        for n in range(40)
    }
    check_schema({**by_pointer(0), "$defs": {**definitions, "a40": {"type": "string"}}}, "f")
