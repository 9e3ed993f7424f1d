"""The types of flow inputs and tool parameters, and the conversion to them: as in promptflow."""

from __future__ import annotations

import json
import re
from typing import Any

SUPPORTED_TYPES = ("int", "double", "bool", "string", "list", "object")
# promptflow converts values of these types to nothing else.
UNCONVERTED_TYPES = ("secret", "prompt_template", "file_path")
UNSUPPORTED_TYPES = ("image", "assistant_definition")
VALUE_TYPES = (*SUPPORTED_TYPES, *UNCONVERTED_TYPES, *UNSUPPORTED_TYPES)

_IMAGE_KEY = re.compile(r"data:image/.*;(path|base64|url)$")


def convert(value: Any, value_type: str) -> Any:
    """Return a value as promptflow converts it to a type.

    Args:
        value: any value, usually from JSON or YAML.
        value_type: one of `VALUE_TYPES`.

    Raises:
        ValueError: the value cannot be converted; also its subclass `json.JSONDecodeError`.
        TypeError: likewise.
        OverflowError: the number is infinite.
    """
    if value_type == "int":
        return int(value)
    if value_type == "double":
        return float(value)
    if value_type == "bool":
        return _to_bool(value)
    if value_type == "string":
        return str(value)
    if value_type == "list":
        return _to_list(value)
    if value_type == "object" and isinstance(value, str):
        return _parsed_or_text(value)
    return value


def contains_image(value: Any) -> bool:
    """Return whether a value has an image in promptflow's form, at any depth."""
    if isinstance(value, list):
        return any(contains_image(item) for item in value)
    if isinstance(value, dict):
        if len(value) == 1 and _IMAGE_KEY.match(str(next(iter(value)))):
            return True
        return any(contains_image(item) for item in value.values())
    return False


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"Invalid boolean value {value!r}")


def _to_list(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, list):
        raise ValueError(f"Invalid list value {value!r}")
    return value


def _parsed_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # promptflow, too, keeps a text that is not JSON
