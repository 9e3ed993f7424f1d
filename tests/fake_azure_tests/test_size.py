"""The fake stays small enough to be read in one sitting."""

from __future__ import annotations

import ast
from pathlib import Path

FAKE = Path(__file__).resolve().parents[1] / "fake_azure"
SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
OF_PROMPT_FLOW = {"flows.py", "flow_runs.py"}  # a separate service, not counted
MOST = 1600


def code_lines(text: str) -> int:
    """Return the number of lines without blank lines, comments and docstrings."""
    lines = [line.strip() for line in text.splitlines()]
    skipped = {number for number, line in enumerate(lines, 1) if not line or line.startswith("#")}
    for scope in (node for node in ast.walk(ast.parse(text)) if isinstance(node, SCOPES)):
        if ast.get_docstring(scope) is not None:
            skipped.update(range(scope.body[0].lineno, scope.body[0].end_lineno + 1))
    return len(lines) - len(skipped)


def test_blank_lines_comments_and_docstrings_do_not_count():
    text = '"""Two\nlines."""\n\n# a comment\ndef f():\n    """One."""\n    return """x\n\ny"""\n'
    assert code_lines(text) == 4 - 1  # a blank line inside a string is not counted either


def test_the_fake_stays_small():
    sizes = {file.name: code_lines(file.read_text(encoding="utf-8")) for file in FAKE.glob("*.py")}
    assert {*sizes} > OF_PROMPT_FLOW
    assert sum(size for name, size in sizes.items() if name not in OF_PROMPT_FLOW) < MOST, sizes
