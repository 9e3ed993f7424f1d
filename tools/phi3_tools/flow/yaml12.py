"""Reads YAML as promptflow does: by YAML 1.2, in which `yes` and `on` are texts and `010` is ten."""

from __future__ import annotations

import re
from functools import cache
from typing import Any


class YamlError(ValueError):
    """A text is not valid YAML."""


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text, made of plain types.

    Raises:
        YamlError: the text is not valid, or a mapping has one key twice.
    """
    import yaml

    try:
        return yaml.load(text, _loader())  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise YamlError(str(error)) from error


@cache
def _loader() -> Any:
    import yaml

    # libyaml's parser takes a tenth of the time.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Yaml12Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
        text = str(loader.construct_scalar(node)).replace("_", "")
        digits = text.lstrip("+-")
        base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 10)
        value = int(digits[2:] if base != 10 else digits, base)
        return -value if text.startswith("-") else value

    def construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Any:
        mapping: dict[Any, Any] = {}
        yield mapping
        merge = "tag:yaml.org,2002:merge"
        keys = [
            repr(loader.construct_object(k, deep=True)) for k, _ in node.value if k.tag != merge
        ]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated} is repeated")
        mapping.update(loader.construct_mapping(node))

    for tag, pattern, first in _RESOLVERS:
        Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, first)
    Yaml12Loader.add_constructor("tag:yaml.org,2002:int", construct_int)
    Yaml12Loader.add_constructor("tag:yaml.org,2002:map", construct_mapping)
    return Yaml12Loader


_DIGITS = list("-+0123456789")
_RESOLVERS: list[tuple[str, re.Pattern[str], list[str]]] = [
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    (
        "float",
        re.compile(
            r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
            |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
            |[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?
            |[-+]?\.(?:inf|Inf|INF)
            |\.(?:nan|NaN|NAN))$""",
            re.VERBOSE,
        ),
        [*_DIGITS, "."],
    ),
    (
        "int",
        re.compile(
            r"""^(?:[-+]?0b[0-1_]+
            |[-+]?0o?[0-7_]+
            |[-+]?[0-9_]+
            |[-+]?0x[0-9a-fA-F_]+)$""",
            re.VERBOSE,
        ),
        _DIGITS,
    ),
    ("merge", re.compile(r"^(?:<<)$"), ["<"]),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    (
        "timestamp",
        re.compile(
            r"""^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}
            |[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}
            (?:[Tt]|[ \t]+)[0-9]{1,2}
            :[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?
            (?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$""",
            re.VERBOSE,
        ),
        list("0123456789"),
    ),
]
