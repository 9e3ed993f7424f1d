"""The README's commands exist, with the options it gives them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from phi3_ops.cli import COMMANDS, _parser
from processes import pf

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
SKIP_SERVICE = "PF_TRACING_SKIP_LOCAL_SETUP=true"
CODE = [line for block in re.findall(r"`+([^`]+)`+", TEXT) for line in block.splitlines()]


def commands(program):
    matches = []
    for line in CODE:
        words = shlex.split(
            re.sub(r"^((PHI3|PF)_\w+=\S+ )+", "", line.split("   #")[0]), posix=True
        )
        if words[:1] == [program]:
            matches.append(words[1:])
    return matches


@pytest.mark.parametrize("words", commands("phi3"), ids=" ".join)
def test_phi3_commands_parse(words):
    named = [word for word in words if word in COMMANDS]
    assert named or words == []
    if len(words) > 1:
        _parser(words[0]).parse_args(words)


@pytest.mark.parametrize("target", sorted({w[0] for w in commands("make")}))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("words", [w for w in commands("pf") if len(w) > 2], ids=" ".join)
def test_pf_commands_have_their_options(words):
    help_text = pf(*words[:2], "--help").stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in help_text


@pytest.mark.parametrize("folder", re.findall(r"^\| `([a-z0-9_/]+/)`", TEXT, re.MULTILINE))
def test_folders_exist(folder):
    assert (ROOT / folder).is_dir()


@pytest.mark.finding(
    17,
    "`pf flow test` starts a service that shows traces to other local users",
    "every such command in the README and the docs switches the service off",
)
@pytest.mark.parametrize("page", ["README.md", *sorted(path.name for path in DOCS.glob("*.md"))])
def test_pf_commands_start_no_trace_service(page):
    """The service would show questions and answers to every user of the machine."""
    folder = ROOT if page == "README.md" else DOCS
    exported = False
    for line in (folder / page).read_text(encoding="utf-8").splitlines():
        exported = line == f"export {SKIP_SERVICE}" or (exported and line != "```")
        # A command, not the name of one: it has an option.
        if command := re.search(r"(\S* ?)\bpf (flow test|run create) --\w", line):
            assert exported or command[1].strip(" `") == SKIP_SERVICE, line
