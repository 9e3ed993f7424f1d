"""The reference pages of the site, made from the code when the site is built."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WIDTH = "92"  # columns of a help text


def reference_pages(root: Path) -> dict[str, str]:
    """Return page -> Markdown for every page in reference/ that is made from the code.

    Args:
        root: folder of the repository.
    """
    for folder in ("tools", "scripts"):
        if str(root / folder) not in sys.path:
            sys.path.append(str(root / folder))
    return {
        "reference/options.md": _options_page(),
        "reference/configuration.md": _configuration_page(),
        "reference/connections.md": _connections_page(),
        **{f"reference/{name}.md": text for name, text in _python_pages()},
    }


# -- commands --------------------------------------------------------------------------------------


def _options_page() -> str:
    from phi3_ops.cli import GROUPS

    parts = [
        "# Options of all commands\n",
        "This page shows the output of `--help` of every command. [Commands](../commands.md) lists the "
        "commands in the order in which they are used.\n",
    ]
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        for task, commands in GROUPS.items():
            parts.append(f"## {task[:1].upper()}{task[1:]}\n")
            for command in commands:
                parts += _help_sections(command)
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return "\n".join(parts).replace(f"{Path.home()}/", "~/")


def _help_sections(command: str) -> Iterator[str]:
    """Yield a section with the help of a command, and one for each of its subcommands."""
    from phi3_ops.cli import _parser

    parser = _subparsers(_parser(command))[command]
    yield f"### phi3 {command}\n\n```text\n{_help_text(parser)}```\n"
    for name, subparser in _subparsers(parser).items():
        yield f"#### phi3 {command} {name}\n\n```text\n{_help_text(subparser)}```\n"


def _help_text(parser: argparse.ArgumentParser) -> str:
    """Return the help of a parser; paths of this repository are shortened."""
    from phi3_ops import paths

    return parser.format_help().replace(f"{paths.ROOT}/", "")


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


# -- phi3.yaml -------------------------------------------------------------------------------------


def _configuration_page() -> str:
    from phi3_ops import paths
    from phi3_ops.azure.config import ENVIRONMENT, Config

    variables = {path: name for name, path in ENVIRONMENT.items()}
    parts = [
        "# phi3.yaml\n",
        "The commands on Azure read their settings from `phi3.yaml`, or from the file that `PHI3_CONFIG` "
        "names. Environment variables take precedence over the file. A field that is not listed here is "
        "refused. The file contains no secrets.\n",
    ]
    for section, field in Config.model_fields.items():
        parts += _section(section, field.annotation, variables)
    example = paths.EXAMPLE_CONFIG.read_text(encoding="utf-8")
    parts.append(f"## An example\n\n```yaml\n{example}```\n")
    return "\n".join(parts)


def _section(name: str, annotation: Any, variables: dict[tuple[str, str], str]) -> Iterator[str]:
    """Yield the heading, the description and the table of a section of the configuration."""
    from pydantic import BaseModel

    models = [t for t in (annotation, *typing.get_args(annotation)) if inspect.isclass(t)]
    model = next((m for m in models if issubclass(m, BaseModel)), None)
    if model is None:
        yield f"## {name}\n\nName of the connection that the flows use. The default is `phi3`.\n"
        return
    yield f"## {name}\n\n{inspect.getdoc(model)}\n"
    rows, nested = [], []
    for field_name, field in model.model_fields.items():
        nested_models = [
            t
            for t in typing.get_args(field.annotation)
            if inspect.isclass(t) and issubclass(t, BaseModel)
        ]
        if nested_models:
            nested.append((f"{name}.{field_name}", nested_models[0]))
        variable = variables.get((name, field_name))
        rows.append(
            (
                f"`{field_name}`",
                _type_text(field),
                _default_text(field),
                f"`{variable}`" if variable else "",
            )
        )
    yield _table(("field", "value", "default", "environment variable"), rows)
    for nested_name, nested_model in nested:
        yield from _section(nested_name, nested_model, variables)


_TYPE_NAMES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "`true` or `false`",
    Path: "path",
}


def _type_text(field: Any) -> str:
    """Return the type of a pydantic field in words, with its limits."""
    from pydantic import BaseModel

    types = typing.get_args(field.annotation) or (field.annotation,)
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in types)
    names = []
    for kind in types:
        if kind is type(None):
            continue
        is_section = inspect.isclass(kind) and issubclass(kind, BaseModel)
        names.append("a section, see below" if is_section else _TYPE_NAMES.get(kind, str(kind)))
    limits = [
        f"{words} {getattr(item, name):g}"
        for item in field.metadata
        for name, words in (("ge", "at least"), ("gt", "above"))
        if getattr(item, name, None) is not None
    ]
    return ", ".join([*names, *limits])


def _default_text(field: Any) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "name of the user"
    value = field.default
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# -- connections -----------------------------------------------------------------------------------


def _connections_page() -> str:
    from phi3_tools.client.settings import SETTINGS_VARIABLES, Settings

    text = inspect.getdoc(Settings) or ""
    described = dict(re.findall(r"^ +(\w+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE))
    described["auth"] = "`key` (the default) or `entra`; see [authentication](../auth.md)."
    described["key"] = "key of the endpoint. It is a secret; with `auth: entra` it is not needed."
    described["contract"] = (
        "wire format: `auto` (the default) or the name of a [contract](../contracts.md)."
    )
    rows = []
    for name in (
        "endpoint",
        "key",
        *[n for n in described if n not in ("endpoint", "key", "limits")],
    ):
        variable = SETTINGS_VARIABLES.get(name)
        words = " ".join(described[name].split())
        rows.append((f"`{name}`", words, f"`{variable}`" if variable else ""))
    return "\n".join(
        [
            "# Connections\n",
            "A connection tells the flows where the model is. It is a CustomConnection of Prompt flow "
            "with the fields below. Only `endpoint` and, with `auth: key`, `key` are required. "
            "`phi3 connect` writes it. [Authentication](../auth.md#where-a-connection-is-found) says in "
            "which order connections are looked up.\n",
            _table(("field", "content", "environment variable"), rows),
            "The variables apply to the connection `phi3` if nothing else has that name. The limits of a "
            "connection (timeouts and attempts) are [described with the errors](../errors.md#retries).\n",
        ]
    )


# -- Python ----------------------------------------------------------------------------------------

CLIENT = {
    "The client": ("Phi3Client",),
    "What a call takes": ("Params", "Message", "Settings", "Limits", "KeyAuth", "EntraAuth"),
    "What a call returns": ("Reply", "Usage", "ToolCall", "Stream", "AsyncStream"),
    "Conversations": ("fit", "from_chat_history", "to_chat_history"),
}


def _python_pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the Markdown of each page about the Python interface."""
    import phi3_tools
    from phi3_tools import errors, evaluation, flow

    text = "# The client\n\nThe package `phi3_tools` is a library that needs no Prompt flow.\n"
    for heading, names in CLIENT.items():
        text += f"\n## {heading}\n" + "".join(f"\n::: phi3_tools.{name}\n" for name in names)
    yield "client", text
    tree = inspect.getdoc(errors) or ""
    names = [n for n in phi3_tools.__all__ if n.endswith("Error")]
    order = sorted(names, key=list(vars(errors)).index)
    text = f"# Exceptions\n\n```text\n{tree}\n```\n\n"
    text += "[Errors](../errors.md) says for each class when it is raised and what to do.\n\n## Classes\n"
    yield "exceptions", text + "".join(f"\n::: phi3_tools.errors.{name}\n" for name in order)
    yield "evaluation", _package_page("Evaluation", evaluation)
    yield "flow", _package_page("The flow engine", flow)


def _package_page(title: str, package: Any) -> str:
    """Return a page with every public class and function of a package."""
    public = [
        name
        for name in package.__all__
        if callable(getattr(package, name)) and inspect.getdoc(getattr(package, name))
    ]
    documented = [
        name for name in public if getattr(package, name).__module__.startswith(package.__name__)
    ]
    intro = (inspect.getdoc(package) or "").strip()
    return f"# {title}\n\n{intro}\n\n## Classes and functions\n" + "".join(
        f"\n::: {package.__name__}.{name}\n" for name in documented
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in r) + " |\n" for r in lines)
