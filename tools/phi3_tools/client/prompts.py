"""A jinja2 chat prompt with roles, made into messages.

A line that holds just `system:`, `user:` or `assistant:` (a `# ` in front and jinja tags around are
allowed) begins a message, as in Prompt flow's LLM tool. Only such lines of the template itself count:
a variable that holds `system:` stays what it is, text, so that nobody can give orders through a
question.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .messages import ROLES, Message

_TAGS = r"(?:[ \t]*\{[%#][^\n]*?[%#]\})*[ \t]*"
_ROLE_LINE = re.compile(
    rf"^({_TAGS})(?:#+[ \t]*)?({'|'.join(ROLES)})[ \t]*:({_TAGS})$", re.IGNORECASE | re.MULTILINE
)


def parse_prompt(template: str, variables: Mapping[str, Any]) -> list[Message]:
    """The messages that a template gives with these variables.

    Args:
        template: jinja2, rendered in its sandbox; a variable that is missing is an error, one that is
            None gives nothing. Blanks around a message are cut off, as Prompt flow does.
        variables: the template's variables, any JSON-like values.

    Raises:
        ConfigError: the template is wrong, a variable is missing, or text stands before the first
            role.
    """
    # The template's own role lines are marked before anything is put in, by what nobody can guess.
    # Digits, since a template may change the case of what it renders.
    mark = f"\0{secrets.randbelow(10**24):024d}"
    marked = _ROLE_LINE.sub(lambda m: f"{m[1]}{mark}{_number(m[2])}{m[3]}", template)
    first, *parts = _render(marked, variables).split(mark)
    if first.strip():
        raise ConfigError(
            "the prompt has text before its first role",
            hint="Begin it with a line `system:` or `user:`.",
        )
    if not parts:
        raise ConfigError("the prompt has no role", hint="Begin it with a line `user:`.")
    messages: list[Message] = [
        {"role": ROLES[int(part[0])], "content": part[1:].strip()} for part in parts
    ]
    return [m for m in messages if m["content"] or m["role"] != "system"]


def _number(role: str) -> int:
    return ROLES.index(role.lower())


def _render(template: str, variables: Mapping[str, Any]) -> str:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        keep_trailing_newline=True,
    )
    try:
        return environment.from_string(template).render(**variables)
    except TemplateError as error:
        raise ConfigError(f"the prompt cannot be rendered: {error}") from error
    except Exception as error:  # an expression of the template can raise anything
        raise ConfigError(f"the prompt cannot be rendered: {type(error).__name__}") from error
