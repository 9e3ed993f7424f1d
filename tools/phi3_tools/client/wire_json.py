"""Parsing of JSON from the network."""

from __future__ import annotations

import json
from typing import Any

from ..errors import well_formed


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text. Every text in the result can be written as UTF-8.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return _well_formed_value(load_json(text))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def load_json(text: str | bytes) -> Any:
    """Parse a JSON text; a text in the result may begin or end with half a surrogate pair.

    An event of a stream may contain one half, and the next event the other.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _well_formed_value(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_well_formed_value(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(name): _well_formed_value(item) for name, item in value.items()}
    return value
