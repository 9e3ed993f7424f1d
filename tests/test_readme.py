"""The README's commands exist, with the options it gives them."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from phi3_ops.cli import COMMANDS, _parser
from phi3_ops.quickstart import report
from phi3_ops.quickstart.model_choice import choose_model
from phi3_ops.quickstart.results import ModelEvaluation
from phi3_ops.quickstart.steps import STEPS, QuickstartJob, QuickstartOptions
from phi3_tools.evaluation import Mean
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


def _quickstart_output():
    """The lines of the README's block with the output of the quickstart."""
    blocks = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
    (block,) = [block for block in blocks if "Questions answered right" in block]
    return block.splitlines()


def test_the_output_of_the_quickstart_has_its_present_shape(tmp_path, monkeypatch):
    """The figures are those of one run. The steps, the columns and the labels are compared."""
    job = _finished_job(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(
        report, "find_endpoint", lambda workdir, name: SimpleNamespace(url="u", pid=1)
    )
    report.print_results(job)
    lines = _quickstart_output()
    steps = [line for line in lines if line.startswith("[")]
    expected = [f"[{n}/{len(STEPS)}] {title}" for n, (_, title, _) in enumerate(STEPS, 1)]
    assert steps == expected[-len(steps) :]
    printed = job.console.file.getvalue().splitlines()
    assert _labels(lines) == _labels(printed)
    heads = [line.split() for line in printed if "fine-tuned" in line or "exact match" in line]
    assert all(head in [line.split() for line in lines] for head in heads[:2])


def _labels(lines):
    """The first words of the lines below the table, and of its rows."""
    return [match[1] for line in lines if (match := re.match(r"  ([a-z-]+( [a-z-]+)*)  ", line))]


def _finished_job(workdir):
    """A quickstart after its last step."""
    mean = {kind: Mean(mean=1.0, stderr=0.0, n=1) for kind in ("trained", "held-out", "unknown")}
    evaluation = ModelEvaluation("run", "scores", 3, 0, {"exact_match": mean, "token_f1": mean})
    return QuickstartJob(
        QuickstartOptions(workdir=workdir),
        Console(file=io.StringIO(), width=200),
        choose_model(None, None, None),
        seconds={name: 1.0 for name, _, _ in STEPS},
        peak_memory=10**9,
        rows=dict.fromkeys(mean, 1),
        questions=[{"kind": kind, "ground_truth": "a"} for kind in mean],
        training=SimpleNamespace(general_rows=40, general_loss=1.0, base_general_loss=1.0),
        evaluations={"base": evaluation, "tuned": evaluation},
        page="http://127.0.0.1:9/",
    )
