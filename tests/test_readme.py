"""README.md: a test runs each of its commands, its badges are true, and its links lead somewhere."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomllib
from rich.console import Console

from badges import badge
from documented_commands import ALL
from pages import write_or_check
from phi3_ops.quickstart import report
from phi3_ops.quickstart.model_choice import choose_model
from phi3_ops.quickstart.results import ModelEvaluation
from phi3_ops.quickstart.steps import STEPS, QuickstartJob, QuickstartOptions
from phi3_tools import Phi3Client
from phi3_tools.evaluation import Mean
from tiny_endpoint import KEY, running

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
SKIP_SERVICE = "PF_TRACING_SKIP_LOCAL_SETUP=true"
LONGEST = 120  # lines
# They prepare Azure. No test can run them: the first installs packages, the second opens a browser.
NOT_RUN = ("pip install -e '.[azure]'", "az login")


def blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands():
    """Return the README's commands, without the comments behind them."""
    lines = [line for block in blocks(TEXT) for line in block.splitlines() if line]
    return [re.sub(r"\s+# .*", "", line).removeprefix(".venv/bin/") for line in lines]


def test_it_is_short():
    assert len(TEXT.splitlines()) <= LONGEST


def test_each_command_is_one_that_a_test_runs():
    """tests/test_commands.py holds the list to the tests."""
    assert [command for command in commands() if command not in (*NOT_RUN, *ALL)] == []


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = {shlex.split(command)[1] for command in ALL if command.startswith("make")}
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_the_snippet_runs(tiny_model_dir, monkeypatch, capsys):
    (code,) = blocks(TEXT, "python")
    with running(tiny_model_dir) as base:
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_ENDPOINT", f"{base}/score")
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_KEY", KEY)
        exec(code, {"Phi3Client": Phi3Client})
    assert capsys.readouterr().out.strip()


def test_folders_exist():
    for folder in re.findall(r"^\| `([a-z0-9_/]+/)`", TEXT, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_its_links_lead_somewhere():
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT) + re.findall(r'src="([^"]+)"', TEXT):
        assert target[1:] in anchors if target.startswith("#") else (ROOT / target).is_file(), (
            target
        )


def test_every_page_is_linked():
    assert {path.name for path in DOCS.glob("*.md")} <= set(re.findall(r"docs/([\w-]+\.md)", TEXT))


@pytest.mark.parametrize("name", ["python", "licence", "coverage"])
def test_the_badges_are_true(name):
    """The values come from pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    values = {
        "python": settings["project"]["requires-python"].removeprefix(">=") + "+",
        "licence": settings["project"]["license"],
        "coverage": f"≥ {settings['tool']['coverage']['report']['fail_under']:.0f} %",
    }
    write_or_check(DOCS / "images" / f"badge-{name}.svg", badge(name, values[name]))


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
    """The lines of the block of docs/quickstart.md that shows the output."""
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    (block,) = [block for block in blocks(text) if "Questions answered right" in block]
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
        groups="fact",
        questions=[{"kind": kind, "ground_truth": "a"} for kind in mean],
        training=SimpleNamespace(general_rows=40, general_loss=1.0, base_general_loss=1.0),
        evaluations={"base": evaluation, "tuned": evaluation},
        page="http://127.0.0.1:9/",
    )
