"""Conversion of a jinja2 chat prompt with roles into messages.

A line that contains only `system:`, `user:` or `assistant:` begins a message, as in Prompt flow's LLM
tool. It may begin with `# ` and may have jinja tags around it. Only lines of the template itself count:
`system:` in the value of a variable stays text, so that a question cannot give orders to the model.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .messages import Message

ROLES = ("system", "user", "assistant")
_TAGS = r"(?:[ \t]*\{[%#][^\n]*?[%#]\})*[ \t]*"
_ROLE_LINE = re.compile(
    rf"^({_TAGS})(?:#+[ \t]*)?({'|'.join(ROLES)})[ \t]*:({_TAGS})$", re.IGNORECASE | re.MULTILINE
)


def parse_prompt(template: str, variables: Mapping[str, Any]) -> list[Message]:
    """Render a template and return its messages.

    Args:
        template: jinja2 template, rendered in jinja2's sandbox. The value None renders as nothing.
            Blanks around a message are removed, as in Prompt flow.
        variables: the template's variables, any JSON-like values.

    Raises:
        ConfigError: the template is not valid, a variable is missing, or there is text before the first
            role.
    """
    # The template's own role lines are marked before the variables are inserted, with a random code that
    # no variable can contain. It consists of digits, because a template may change upper and lower case.
    mark = f"\0{secrets.randbelow(10**24):024d}"
    marked = _ROLE_LINE.sub(lambda m: f"{m[1]}{mark}{_role_index(m[2])}{m[3]}", template)
    first, *parts = _render(marked, variables).split(mark)
    if first.strip():
        raise ConfigError(
            "the prompt has text before its first role",
            hint="Begin the prompt with a line `system:` or `user:`.",
        )
    if not parts:
        raise ConfigError("the prompt has no role", hint="Begin the prompt with a line `user:`.")
    messages: list[Message] = [
        {"role": ROLES[int(part[0])], "content": part[1:].strip()} for part in parts
    ]
    return [m for m in messages if m["content"] or m["role"] != "system"]


def _role_index(role: str) -> int:
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
    except Exception as error:  # an expression in the template can raise any exception
        raise ConfigError(f"the prompt cannot be rendered: {type(error).__name__}") from error
