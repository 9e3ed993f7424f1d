"""The pages of docs/: each snippet runs, each command exists, each generated part is up to date."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import json
import re
import shlex

import pytest

import phi3_tools
from pages import DOCS, check_part, table
from phi3_ops.cli import main
from phi3_ops.endpoint.fault_rules import load_fault_rules
from phi3_ops.pf.client import prepare
from phi3_tools import Limits, Params, Phi3Error, StatusError, errors
from phi3_tools.client.auth import SCOPES
from phi3_tools.client.contracts import CONTRACTS
from phi3_tools.client.status import MODEL_REASON, MODEL_STATUS, NOT_READY, error_for_response
from tiny_endpoint import KEY, running

TESTS = DOCS.parent / "tests"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
COMMANDS = ("phi3", "pf")
# The comment after a `print` is its output.
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Return a page's fenced blocks of one language, each with the number of its first line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    matches = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in matches]


# -- snippets --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tiny_model_dir):
    with running(tiny_model_dir) as base:
        yield base


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_snippets_run_and_print_what_they_say(page, base, monkeypatch, capsys):
    monkeypatch.setenv("PHI3_ENDPOINT", f"{base}/score")
    monkeypatch.setenv("PHI3_KEY", KEY)
    names: dict[str, object] = {}
    for line, code in blocks(page, "python"):
        # With the empty lines, a traceback shows the line number of the page.
        exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)
        printed = capsys.readouterr().out
        assert set(PRINTED.findall(code)) <= set(printed.splitlines())


def test_the_wrong_settings_of_the_page_are_refused(capsys):
    code = next(code for _, code in blocks("auth.md", "python") if "ConfigError" in code)
    exec(code, {"Phi3Client": phi3_tools.Phi3Client})
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_fault_rules_of_the_page_can_be_loaded(tmp_path):
    ((_, text),) = blocks("faults.md", "yaml")
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    assert len(load_fault_rules(path)) == text.count("fault:")


# -- commands --------------------------------------------------------------------------------------


def commands(page: str) -> list[list[str]]:
    """Return the words of every `phi3` and `pf` command on a page."""
    code = "".join(code for _, code in blocks(page, "bash"))
    lines = code.replace("\\\n", " ").splitlines()
    return [words for words in map(shlex.split, lines) if words and words[0] in COMMANDS]


@functools.cache
def help_of(*words: str) -> str:
    """Return the help of a command; in this process, because a start of `pf` takes seconds."""
    if words[0] == "pf":
        prepare()
        from promptflow._cli._pf.entry import entry
    else:
        entry = main
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        entry([*words[1:], "--help"])
    assert ended.value.code in (None, 0)
    return output.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_and_their_options_exist(page):
    for words in commands(page):
        # `phi3 connect`, but `phi3 flow lock` and `pf flow serve`
        deep = words[0] == "pf" or words[1] in ("flow", "feedback")
        depth = 3 if deep else 2
        text = help_of(*words[:depth])
        for word in words[depth:]:
            if word.startswith("-"):
                option = rf"(?<![\w-]){word}(?![\w-])"
                assert re.search(option, text), f"no {word} in {words[:depth]}"


def test_the_pages_have_commands_of_both_programs():
    assert {words[0] for page in PAGES for words in commands(page)} == set(COMMANDS)


# -- generated parts -------------------------------------------------------------------------------


def error_classes() -> list[type[Phi3Error]]:
    """Return every class that is raised, in the order of the module."""
    found = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, Phi3Error)]
    return [c for c in found if c not in (Phi3Error, StatusError)]


TRAFFIC = b'{"error": {"message": "Specified traffic group could not be found."}}'
# The rows of the table: status, the two headers of a 424, body, and what the table says about them.
ANSWERS: list[tuple[int, dict[str, str], bytes, str]] = [
    *[(code, {}, b"", "") for code in (302, 400, 401, 403, 404)],
    (404, {}, TRAFFIC, "while traffic is being set"),
    *[(code, {}, b"", "") for code in (408, 413, 422, 429, 500, 502, 503, 504)],
    *[
        (424, {MODEL_STATUS: str(code)}, b"", f"around {code}")
        for code in (400, 401, 408, 413, 422, 429, 500, 503, 504)
    ],
    *[(424, {MODEL_REASON: reason}, b"", f"`{reason}`") for reason in NOT_READY],
]


def test_classes():
    tree = errors.__doc__ or ""
    raised = [error_for_response(code, headers, body) for code, headers, body, _ in ANSWERS]
    rows = []
    for cls in error_classes():
        when = re.search(rf"── {cls.__name__}\b:?\s+(.+)", tree)
        assert when, f"{cls.__name__} is not in the tree"
        whose = "yours" if cls.user_fault else "the endpoint's"
        same = [error for error in raised if type(error) is cls] or [cls("")]
        requests = sorted({Limits().attempts_for(error) for error in same})
        hint = cls.hint or "What the message says."
        rows.append([f"`{cls.__name__}`", when[1], whose, " or ".join(map(str, requests)), hint])
    head = ["class", "when", "whose move", "requests at most", "what to do"]
    check_part("errors.md", "classes", table(head, rows))


def test_statuses():
    rows = []
    for code, headers, body, shown in ANSWERS:
        error = error_for_response(code, headers, body)
        requests = Limits().attempts_for(error)
        how_often = "once" if requests == 1 else f"up to {requests} times"
        rows.append([f"{code} {shown}".strip(), f"`{type(error).__name__}`", how_often])
    check_part("errors.md", "statuses", table(["status", "class", "sent"], rows))


def test_limits():
    """Names and defaults from the class, words from its docstring."""
    text = inspect.getdoc(Limits) or ""
    rows = []
    for item in dataclasses.fields(Limits):
        words = re.search(rf"^ *{item.name}: (.+(?:\n {{8,}}\S.*)*)", text, re.MULTILINE)
        assert words, f"{item.name} is not described"
        default = "by class" if item.default is None else f"{item.default:,}"
        rows.append([f"`{item.name}`", default, " ".join(words[1].split())])
    check_part("errors.md", "limits", table(["limit", "default", "what it is"], rows))


def test_requests():
    params = Params(max_new_tokens=16, temperature=0, top_p=0.9, seed=1)
    parts = []
    for name, contract in CONTRACTS.items():
        body = contract.encode([{"role": "user", "content": "Hello"}], params, False, None)
        parts.append(f"`{name}`\n\n```json\n{json.dumps(body, indent=1)}\n```\n")
    check_part("contracts.md", "requests", "\n".join(parts))


def test_scopes():
    rows = [[f"`*{suffix}`" if suffix else "any other", f"`{scope}`"] for suffix, scope in SCOPES]
    check_part("auth.md", "scopes", table(["host", "scope"], rows))


def findings() -> list[tuple[int, str, str, str]]:
    """Return number, attack, present behaviour and test of every test with the mark `finding`."""
    rows = []
    for file in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.finding":
                    number, attack, now = (ast.literal_eval(argument) for argument in mark.args)
                    test = f"{file.relative_to(TESTS).as_posix()}::{node.name}"
                    rows.append((number, attack, now, test))
    return sorted(rows)


def test_images_without_a_digest():
    """The page lists every image that the product starts from, so that nobody takes one for pinned."""
    scripts = TESTS.parent / "scripts"
    names = ("Dockerfile", "*.yml", "*.py")
    files = sorted(file for name in names for file in scripts.rglob(name))
    image = re.compile(r"^(?:FROM +|\s*image: +|CPU_IMAGE = \")([^\s\"]+)", re.MULTILINE)
    rows = []
    for file in files:
        for name in image.findall(file.read_text(encoding="utf-8")):
            if "@sha256:" not in name:
                rows.append([f"`{name}`", f"`{file.relative_to(TESTS.parent).as_posix()}`"])
    check_part("security.md", "images", table(["image", "file"], rows))


def test_findings():
    head = ["no.", "attack or mistake", "what happens now", "test"]
    rows = [[str(number), attack, now, f"`{test}`"] for number, attack, now, test in findings()]
    check_part("security.md", "findings", table(head, rows))


def test_every_setting_of_the_scoring_script_is_documented():
    """The table on the page of the local endpoint lists each setting, and no other."""
    documented = re.findall(
        r"^\| `([A-Z0-9_]+)` \|", (DOCS / "endpoint.md").read_text(), re.MULTILINE
    )
    code = "".join(
        file.read_text() for file in sorted((DOCS.parent / "scripts/serving").glob("*.py"))
    )
    settings = re.findall(r"\b(?:(?:PHI3|ORT)_[A-Z0-9_]+|WORKER_COUNT)\b", code)
    assert set(documented) == set(settings)
