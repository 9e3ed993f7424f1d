"""Rewrites the imports of promptflow in a flow's Python files; refuses those without a successor."""

from __future__ import annotations

import ast
import io

from phi3_tools.flow import REPLACED_NAMES, is_replaced_import

from ..errors import OpsError

SUCCESSOR = "phi3_tools.flow"


def without_promptflow(source: str, name: str) -> str:
    """Return a Python file with `from promptflow.core import tool`, and the like, replaced.

    All other text stays as it is.

    Args:
        source: the content of the file.
        name: its name, for errors.

    Raises:
        OpsError: the file is not valid Python, or uses something else of promptflow.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise OpsError(f"{name} is not valid Python: {error}", "Correct the file.") from error
    lines = io.StringIO(source, newline="").readlines()  # as Python counts lines
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and is_replaced_import(node):
            _replace_module(lines, node)
        elif imported := _promptflow_import(node):
            line = getattr(node, "lineno", 0)
            what = f"{name}, line {line}: {imported} has no successor outside Prompt flow"
            fix = "Import only `tool`, `trace` and `log_metric`, from phi3_tools.flow."
            raise OpsError(what, fix)
    return "".join(lines)


def _replace_module(lines: list[str], node: ast.ImportFrom) -> None:
    """Replace the module in the source of one import; the imported names stay as they are."""
    module, column = str(node.module), node.col_offset
    for index in range(node.lineno - 1, node.end_lineno or node.lineno):
        line = lines[index].encode()
        start, rest = line[:column].decode(), line[column:].decode()
        if module in rest:
            lines[index] = start + rest.replace(module, SUCCESSOR, 1)
            return
        column = 0  # the statement goes on in the next line


def _promptflow_import(node: ast.AST) -> str | None:
    """Return what a statement imports of promptflow, or None."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        names = [f"{node.module}.{a.name}" for a in node.names if a.name not in REPLACED_NAMES]
        names = names or [node.module]
    return next((n for n in names if n == "promptflow" or n.startswith("promptflow.")), None)
