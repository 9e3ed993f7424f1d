"""Names and literals in the Python code that `phi3 flow export` writes."""

from __future__ import annotations

import keyword
import math
import re
import sys
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

_NOT_IN_IDENTIFIER = re.compile(r"\W+")
_WORDS = re.compile(r"[^0-9A-Za-z]+|(?<=[a-z0-9])(?=[A-Z])")


def literal(value: Any) -> str:
    """Return a value from a flow's YAML as Python source, with double quotes."""
    if isinstance(value, str):
        text = repr(value)
        if text.startswith("'") and '"' not in text:
            return '"' + text[1:-1].replace("\\'", "'") + '"'
        return text
    if isinstance(value, dict):
        items = (f"{literal(key)}: {literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def identifier(name: str) -> str:
    """Return a name as a Python identifier in lower case."""
    text = _NOT_IN_IDENTIFIER.sub("_", name).strip("_").lower() or "node"
    text = f"node_{text}" if text[0].isdigit() else text
    return f"{text}_" if keyword.iskeyword(text) else text


def class_name(name: str) -> str:
    """Return a name as the name of a Python class."""
    words = "".join(word[:1].upper() + word[1:] for word in _WORDS.split(name) if word)
    text = _NOT_IN_IDENTIFIER.sub("", words) or "Node"
    return f"Node{text}" if text[0].isdigit() else text


def unique(name: str, taken: Iterable[str]) -> str:
    """Return the name, or the name with a number after it, so that it is not among the taken ones."""
    names, number, candidate = set(taken), 2, name
    while candidate in names:
        candidate = f"{name}_{number}"
        number += 1
    return candidate


def importable_path(path: str) -> str:
    """Return the path of a node's Python file, changed if Python could not import the file by its name.

    A part that is not an identifier gets underscores. A file with the name of a module of the standard
    library gets `_node` after its name.
    """
    parts = [
        part if part.isidentifier() and not keyword.iskeyword(part) else identifier(part)
        for part in PurePosixPath(path).with_suffix("").parts
    ]
    if parts[0] in sys.stdlib_module_names:
        parts[0] += "_node"
    return "/".join(parts) + ".py"


def module_of(path: str) -> str:
    """Return the name by which a file is imported."""
    return path.removesuffix(".py").replace("/", ".")
