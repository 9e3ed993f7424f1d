"""Prompt nodes: jinja2 templates, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from .errors import FlowError, NodeError
from .model import Node


class JinjaTemplateError(NodeError):
    """A prompt cannot be rendered."""

    error_codes = ("UserError", "ToolValidationError", "JinjaTemplateError")


def template_variables(node: Node, template: str) -> set[str]:
    """Return the names of the variables that a template needs.

    Raises:
        FlowError: the template is not valid.
    """
    from jinja2 import TemplateError, meta

    try:
        return set(meta.find_undeclared_variables(_environment().parse(template)))
    except TemplateError as error:
        reason = f"{node.path} is not a valid template: {error}"
        raise FlowError(
            reason, "correct the file", node=node.name, field="source.path", code="ResolveToolError"
        ) from error


def render_function(node: Node, template: str) -> Callable[..., str]:
    """Return the tool of a prompt node, which renders the template with its inputs.

    Raises:
        FlowError: the template is not valid, or uses the reserved variable `template`.
    """
    if "template" in template_variables(node, template):
        raise FlowError(
            "the prompt uses the reserved variable `template`",
            "rename the variable",
            node=node.name,
            field="source.path",
            code="ResolveToolError",
        )
    compiled = _environment().from_string(template)

    def render(**variables: Any) -> str:
        try:
            return str(compiled.render(**variables))
        except Exception as error:
            reason = f"Failed to render jinja template: {type(error).__name__}: {error}."
            raise JinjaTemplateError(reason) from error

    return render


@cache
def _environment() -> Any:
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(trim_blocks=True, keep_trailing_newline=True)
