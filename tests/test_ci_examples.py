"""examples/ci: their form, checked without a schema, and that their commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from phi3_ops import cli

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "ci"
STEP_KEYS = {"name", "id", "uses", "with", "run", "shell", "env", "if"}
JOB_KEYS = {
    *("needs", "if", "runs-on", "timeout-minutes", "environment", "permissions", "env", "steps"),
}
# One command of each part of a pipeline.
PARTS = ("ruff check", "pytest ", "phi3 compare ", "phi3 flow upload ", "phi3 flow promote ")


def load(name):
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


def github_steps():
    jobs = load("github-actions.yml")["jobs"]
    return [(job, step) for job, content in jobs.items() for step in content["steps"]]


def azure_steps():
    steps_of_stages = []
    for stage in load("azure-pipelines.yml")["stages"]:
        (job,) = stage["jobs"]
        steps = job["steps"] if "job" in job else job["strategy"]["runOnce"]["deploy"]["steps"]
        steps_of_stages += [(stage["stage"], step) for step in steps]
    return steps_of_stages


def scripts(name):
    if name.startswith("github"):
        return [step["run"] for _, step in github_steps() if "run" in step]
    texts = [
        step.get("bash") or step.get("inputs", {}).get("inlineScript") for _, step in azure_steps()
    ]
    return [script for script in texts if script]


NAMES = sorted(path.name for path in EXAMPLES.iterdir())


def test_there_is_one_for_each_service():
    assert NAMES == ["azure-pipelines.yml", "github-actions.yml"]


def test_the_form_of_a_github_workflow():
    workflow = load("github-actions.yml")
    workflow["on"] = workflow.pop(True)  # YAML 1.1 reads `on` as true
    assert set(workflow) <= {"name", "on", "permissions", "concurrency", "env", "jobs"}
    assert set(workflow["on"]) == {"pull_request", "push"}
    for job in workflow["jobs"].values():
        assert set(job) <= JOB_KEYS
        assert {job["needs"]} <= set(workflow["jobs"]) if "needs" in job else True
    for _, step in github_steps():
        assert set(step) <= STEP_KEYS
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))


def test_the_references_of_a_github_workflow_exist():
    text = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")
    expressions = re.findall(r"\$\{\{ (.*?) \}\}", text)
    assert len(expressions) == text.count("${{")
    ids = {(job, step["id"]) for job, step in github_steps() if "id" in step}
    for job, step in github_steps():
        for name in re.findall(r"steps\.(\w+)\.outputs", str(step)):
            assert (job, name) in ids
    known = r"(github\.ref|vars\.AZURE_\w+|steps\.\w+\.outputs\.name)"
    assert [each for each in expressions if not re.fullmatch(known, each)] == []
    assert "secrets." not in text


def test_nothing_leaves_a_pull_request():
    jobs = load("github-actions.yml")["jobs"]
    for name, job in jobs.items():
        leaves = any(
            "phi3 flow upload" in str(step) or "azure/login" in str(step) for step in job["steps"]
        )
        assert leaves == (job.get("permissions", {}).get("id-token") == "write")
        assert leaves == (job.get("if") == "github.event_name == 'push'"), name
    for stage in load("azure-pipelines.yml")["stages"]:
        leaves = "AzureCLI@2" in str(stage)
        assert leaves == (
            "ne(variables['Build.Reason'], 'PullRequest')" in stage.get("condition", "")
        )


def test_the_form_of_an_azure_pipeline():
    pipeline = load("azure-pipelines.yml")
    assert set(pipeline) == {"trigger", "variables", "pool", "stages"}
    names = [stage["stage"] for stage in pipeline["stages"]]
    for number, stage in enumerate(pipeline["stages"]):
        assert set(stage) <= {"stage", "dependsOn", "condition", "jobs"}
        assert stage.get("dependsOn") in (None, *names[:number])
    for _, step in azure_steps():
        assert len({"task", "bash", "checkout"} & set(step)) == 1
        assert set(step) <= {"task", "bash", "checkout", "inputs", "displayName"}
        assert re.fullmatch(r"\w+@\d+", step.get("task", "A@1"))


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_are_bash_and_hold_every_part(name):
    for script in scripts(name):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=30)
    text = "\n".join(scripts(name))
    assert [part for part in PARTS if part not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_exist(name):
    text = "\n".join(scripts(name)).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    commands = [shlex.split(line.split(" | ")[0]) for line in lines if line.startswith("phi3 ")]
    assert len(commands) == 10
    for _, *words in commands:
        args = cli._parser(words[0]).parse_args(words)  # ends the test where one is unknown
        assert callable(args.run)
