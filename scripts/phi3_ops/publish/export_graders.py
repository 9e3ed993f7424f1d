"""Foundry's code evaluators: one file per score with `grade(sample, item)`, which needs no network.

Foundry runs them with numpy and rouge-score, and without this package. So each file contains the source
of the functions that it needs. Contract: "Custom evaluators" (Microsoft Learn, Foundry): one float from 0
to 1.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping

from phi3_tools.evaluation import line_scores
from phi3_tools.flow import Flow

# Score -> the functions that its grader contains.
ROOTS = {"exact_match": ("exact_match",), "token_f1": ("token_f1",), "rouge_l": ("words", "_Words")}


def grader_files(
    flow: Flow, files: Mapping[str, bytes], render: Callable[..., str]
) -> dict[str, bytes]:
    """Return the graders for the outputs of a flow that scores lines with `line_scores`."""
    uses_scores = any(
        b"line_scores" in text for name, text in files.items() if name.endswith(".py")
    )
    if not uses_scores:
        return {}
    return {
        f"graders/{name}.py": render("grader.py", score=name, code=_source_of(roots)).encode()
        for name, roots in ROOTS.items()
        if name in flow.outputs
    }


def _source_of(roots: tuple[str, ...]) -> str:
    """Return the source of functions of the metrics, with everything that they use."""
    source = inspect.getsource(sys.modules[line_scores.__module__])
    statements = {name: node for node in ast.parse(source).body for name in _defined(node)}
    needed, waiting = set(), list(roots)
    while waiting:
        name = waiting.pop()
        if name in statements and name not in needed:
            needed.add(name)
            waiting += [n.id for n in ast.walk(statements[name]) if isinstance(n, ast.Name)]
    chosen = dict.fromkeys(statements[name] for name in statements if name in needed)
    imports = [n for n in chosen if isinstance(n, (ast.Import, ast.ImportFrom))]
    others = [n for n in chosen if n not in imports]
    lines = [ast.get_source_segment(source, node) or "" for node in imports]
    return "\n".join([*lines, "", "\n\n".join(_segment(source, node) for node in others)])


def _segment(source: str, node: ast.stmt) -> str:
    text = ast.get_source_segment(source, node) or ""
    return f"\n{text}" if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else text


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "level", 0) == 0:
        return [alias.asname or alias.name for alias in node.names]
    return []
