"""Users' Python files without promptflow: their imports of it are taken from this package."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from types import CodeType

REPLACEMENT = "phi3_tools.flow"
# Names of promptflow that this package has as well, and the modules that people import them from.
REPLACED_NAMES = frozenset({"tool", "trace", "log_metric", "CustomConnection", "ToolProvider"})
REPLACED_MODULES = frozenset(
    {
        "promptflow",
        "promptflow.connections",
        "promptflow.core",
        "promptflow.tracing",
        "promptflow._internal",
        "promptflow.entities",
        "promptflow._core.tool",
    }
)


def is_replaced_import(node: ast.ImportFrom) -> bool:
    """Return whether a statement imports only names of promptflow that this package has as well."""
    names = {alias.name for alias in node.names}
    return node.level == 0 and node.module in REPLACED_MODULES and names <= REPLACED_NAMES


class PromptflowImports(ast.NodeTransformer):
    """Replaces `from promptflow.core import tool` by `from phi3_tools.flow import tool`, and the like.

    An import with any name that this package does not have stays as it is.
    """

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:  # noqa: N802 - ast's name
        if is_replaced_import(node):
            return ast.copy_location(ast.ImportFrom(REPLACEMENT, node.names, 0), node)
        return node


def compile_without_promptflow(source: bytes, path: Path) -> CodeType:
    """Compile a Python file, with its imports of promptflow replaced.

    Raises:
        SyntaxError: the file is not valid Python.
    """
    tree = PromptflowImports().visit(ast.parse(source, filename=str(path)))
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


@cache
def promptflow_is_installed() -> bool:
    """Return whether promptflow can be imported."""
    spec = importlib.util.find_spec("promptflow")
    folders = (spec and spec.submodule_search_locations) or []
    return any((Path(folder) / "core").is_dir() for folder in folders)
