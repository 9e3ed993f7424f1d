"""References of a JSON schema: how often validation may visit one value by following them.

A schema of 40 levels that each refer twice to the next one is small, but visits a value 2**40 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MAX_VISITS = 20_000  # visits of one value by one schema
MAX_CHAIN = 256  # schemas in a row that apply to the same value
MAX_TARGETS = 500_000  # possible targets of all references together
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS = ("$anchor", "$dynamicAnchor", "$id", "id")
# Keywords whose schemas apply to the same value as the schema that contains them.
_LISTS = ("allOf", "anyOf", "oneOf")
_SCHEMAS = ("not", "if", "then", "else")
_MAPPINGS = ("dependentSchemas", "dependencies")


def check_references(schema: Any) -> None:
    """Check that the references of a schema cannot make validation hang.

    Args:
        schema: the schema, as `json.loads` returns it.

    Raises:
        ValueError: one value may be visited more than `MAX_VISITS` times.
    """
    visits = _Visits(schema)
    for part in visits.parts:
        if visits.count(part) > MAX_VISITS:
            raise ValueError(f"its references visit one value more than {MAX_VISITS} times")


class _Visits:
    """Counts visits. A reference with several possible targets counts as the most expensive one."""

    def __init__(self, schema: Any) -> None:
        self.parts = list(_objects(schema))
        self._roots = [schema, *(part for part in self.parts if _has_id(part))]
        self._anchors: dict[str, list[Any]] = {}
        for part in self.parts:
            for keyword in _ANCHORS:
                if isinstance(name := part.get(keyword), str):
                    self._anchors.setdefault(name.lstrip("#"), []).append(part)
        self._counts: dict[int, int] = {}
        self._target_count = 0

    def count(self, schema: Any, chain: int = 1) -> int:
        """Return how many schemas apply to a value if this one does; a cycle counts once."""
        if not isinstance(schema, Mapping):
            return 1
        if id(schema) in self._counts:
            return self._counts[id(schema)]
        if chain > MAX_CHAIN:
            raise ValueError(f"its references make a chain of more than {MAX_CHAIN} schemas")
        self._counts[id(schema)] = total = 1
        for alternatives in self._applied(schema):
            total += max([self.count(part, chain + 1) for part in alternatives], default=1)
        self._counts[id(schema)] = total
        return total

    def _applied(self, schema: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Yield the schemas that apply to the same value; a reference as a list of possible targets."""
        for keyword in _REFERENCES:
            if isinstance(reference := schema.get(keyword), str):
                yield self._targets(reference)
        for keyword in _LISTS:
            if isinstance(parts := schema.get(keyword), list):
                yield from ([part] for part in parts)
        for keyword in _MAPPINGS:
            if isinstance(parts := schema.get(keyword), Mapping):
                yield from ([part] for part in parts.values())
        yield from ([schema[keyword]] for keyword in _SCHEMAS if keyword in schema)

    def _targets(self, reference: str) -> list[Any]:
        """Return the possible targets: an `$id` inside the schema may change what a reference means."""
        _, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        is_anchor = fragment and not fragment.startswith("/")
        targets = self._anchors.get(fragment, []) if is_anchor else self._roots
        self._target_count += len(targets)
        if self._target_count > MAX_TARGETS:
            raise ValueError("it has too many references and schemas with an `$id`")
        if not fragment or is_anchor:
            return targets
        names = [name.replace("~1", "/").replace("~0", "~") for name in fragment.split("/")[1:]]
        return [part for root in targets if (part := _at(root, names)) is not None]


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects at all levels."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _has_id(schema: Mapping[str, Any]) -> bool:
    return isinstance(schema.get("$id"), str) or isinstance(schema.get("id"), str)


def _at(value: Any, names: list[str]) -> Any:
    """Return the value at the names of a JSON pointer, or None."""
    for name in names:
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            return None
    return value
