"""A jinja2 chat prompt with roles, made into messages.

A line that holds just `system:`, `user:` or `assistant:` (a `# ` in front is allowed) begins a
message, as in Prompt flow's LLM tool. Only such lines of the template itself count: a variable that
holds `system:` stays what it is, text, so that nobody can give orders through a question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError
from .messages import ROLES, Message

_ROLE_LINE = re.compile(
    rf"^[ \t]*(?:#+[ \t]*)?({'|'.join(ROLES)})[ \t]*:[ \t]*$", re.IGNORECASE | re.MULTILINE
)
# Stands between a variable's letters and the template's parser; private use, so that no text has it.
_GUARD = "\ue0f8"


def parse(template: str, variables: Mapping[str, Any]) -> list[Message]:
    """The messages that a template gives with these variables.

    Args:
        template: jinja2, rendered in its sandbox; a variable that is missing is an error.
        variables: the template's variables, any JSON-like values.

    Raises:
        ConfigError: the template is wrong, a variable is missing, or text stands before the first
            role.
    """
    parts = _ROLE_LINE.split(_render(template, variables))
    if parts[0].strip():
        raise ConfigError(
            "the prompt has text before its first role",
            hint="Begin it with a line `system:` or `user:`.",
        )
    messages: list[Message] = [
        {"role": role.lower(), "content": content.replace(_GUARD, "").strip()}
        for role, content in zip(parts[1::2], parts[2::2])
    ]
    if not messages:
        raise ConfigError("the prompt has no role", hint="Begin it with a line `user:`.")
    return [m for m in messages if m["content"] or m["role"] != "system"]


def _render(template: str, variables: Mapping[str, Any]) -> str:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, finalize=_guarded, keep_trailing_newline=True
    )
    try:
        return environment.from_string(template).render(**variables)
    except TemplateError as error:
        raise ConfigError(f"the prompt cannot be rendered: {error}") from error


def _guarded(value: Any) -> str:
    """A variable's text with each colon guarded: it can end no role line, whatever stands around it."""
    return "" if value is None else str(value).replace(":", _GUARD + ":") + _GUARD
