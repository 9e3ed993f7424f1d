"""The chat template in a model's folder, for exact counts of a chat's tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

# transformers marks the answers of a template for training; plain Jinja does not know these blocks.
_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")


def read_chat_template(folder: Path) -> Callable[[Sequence[Mapping[str, Any]]], str] | None:
    """Return a function that renders messages in a model's chat template, up to where the answer starts.

    The function raises any exception that the template raises.

    Args:
        folder: folder of a model, with `chat_template.jinja` or `tokenizer_config.json`.

    Returns:
        None if the folder has no chat template that can be used, or the package `jinja2` is missing.
    """
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(raise_exception=_raise, strftime_now=_strftime_now)
    try:
        source, special_tokens = _read_files(folder)
        template = environment.from_string(_GENERATION.sub(_plain_block, source))
    except (OSError, ValueError, KeyError, TypeError, TemplateError):
        return None

    def render(messages: Sequence[Mapping[str, Any]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **special_tokens)

    return render


def _read_files(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the source of the template, and the special tokens that it may use."""
    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    has_config = config_file.is_file()
    config = json.loads(config_file.read_text(encoding="utf-8")) if has_config else {}
    has_template = template_file.is_file()
    source = template_file.read_text(encoding="utf-8") if has_template else config["chat_template"]
    return source, {name: token for name, token in config.items() if name.endswith("_token")}


def _plain_block(match: re.Match[str]) -> str:
    """Return a block that renders the same as `generation` or `endgeneration`."""
    return f"{{%{match[1]} {'endif' if match[2] else 'if true'} {match[3]}%}}"


def _raise(message: str) -> None:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
