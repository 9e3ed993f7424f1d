"""examples/ci: form, pinned actions, hashed packages, and that the commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from phi3_ops import cli

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "ci"
PROJECT = "phi3-promptflow"
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


NAMES = sorted(path.name for path in EXAMPLES.glob("*.yml"))


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


@pytest.mark.finding(
    16,
    "the tag of a GitHub action is moved to other code",
    "every action of the example is pinned to a commit",
)
def test_actions_are_pinned_to_a_commit_with_the_version_in_a_comment():
    text = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "uses:" in line]
    assert len(lines) == sum("uses" in step for _, step in github_steps()) == 14
    pin = re.compile(r" *- uses: ([\w-]+/[\w-]+)@([0-9a-f]{40})  # (v\d+\.\d+\.\d+)")
    pins = {match.groups() for line in lines if (match := pin.fullmatch(line))}
    assert all(pin.fullmatch(line) for line in lines)
    assert len(pins) == len({action for action, *_ in pins}) == 5  # one version of each


@pytest.mark.parametrize("name", NAMES)
def test_no_image_has_a_floating_tag(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert not re.search(r"latest|\b(container|image|docker)\b.*:", text)


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
        kinds = {"task", "bash", "checkout", "publish", "download"} & set(step)
        assert len(kinds) == 1
        assert set(step) <= {*kinds, "inputs", "displayName", "submodules", "artifact"}
        assert re.fullmatch(r"\w+@\d+", step.get("task", "A@1"))


def jobs(name):
    """Return the steps of each job or stage."""
    steps_of_jobs = {}
    for job, step in github_steps() if name.startswith("github") else azure_steps():
        steps_of_jobs.setdefault(job, []).append(step)
    return steps_of_jobs


def pip_commands(text):
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if re.search(r"\b(pip|uv|pipx|conda)\b", line)]


@pytest.mark.finding(
    16,
    "a job with production credentials installs packages by name",
    "the example pipelines install the wheel that they built, and other packages by hash",
)
@pytest.mark.parametrize("name", NAMES)
def test_packages_come_by_hash_and_the_project_from_the_job_that_built_it(name):
    """The project's name is not on the index, so a job must never install it by name."""
    locks, wheels = [], []
    for script in scripts(name):
        for words in pip_commands(script):
            assert words[0] == "pip" and words[1] in ("install", "wheel")
            options = {word for word in words[2:] if word.startswith("--")}
            files = [word for word in words[2:] if re.search(r"/|\.(whl|lock)$", word)]
            arguments = [word for word in words[2:] if not word.startswith("-")]
            if "--require-hashes" in options:
                assert files == arguments[-1:] and files[0].endswith(".lock")
                assert words[-2] == "-r"
                assert {
                    "--only-binary",
                    "--no-build-isolation",
                } & options  # builds fetch no package
                locks.append(Path(files[0]).name)
            else:
                assert {"--no-index", "--no-deps"} <= options
                wheels.append((words[1], files[-1]))
    assert locks == ["tools.lock", *["tools.lock", "requirements.lock"] * 3]
    built, *installed = wheels
    assert built == ("wheel", "./$SOURCE")
    assert [verb for verb, _ in installed] == ["install"] * 3
    assert all(re.fullmatch(r"(\$PIPELINE_WORKSPACE/)?dist/\*\.whl", file) for _, file in installed)


@pytest.mark.parametrize("name", NAMES)
def test_every_job_after_the_build_takes_its_artifact(name):
    first, *others = jobs(name).values()
    assert "upload-artifact" in str(first[-1]) or first[-1].get("publish") == "dist"
    for steps in others:
        texts = [str(step) for step in steps]
        install = next(n for n, text in enumerate(texts) if "pip install" in text)
        assert "download-artifact" in texts[install - 1] or "'current'" in texts[install - 1]
        assert "'dist'" in texts[install - 1]


def locked(name):
    """Return the version of each package of a lock, by its canonical name."""
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    versions, hashes = {}, 0
    for number, line in enumerate(lines):
        if match := re.fullmatch(r"([a-z0-9.-]+)==(\S+) \\", line):
            versions[match[1]] = match[2]
            assert "--hash=" in lines[number + 1]
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?|#.*", line), line
            hashes += line.startswith(" ")
    assert hashes >= len(versions)
    return versions


def constraints():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pairs = [line.split("==") for line in text.splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", ["requirements.lock", "tools.lock"])
def test_a_lock_holds_the_tested_versions(name):
    assert locked(name).items() <= constraints().items()


def required(extras, options):
    """Return the requirements of extras of the project, through extras that they contain."""
    for extra in extras:
        for requirement in map(Requirement, options[extra]):
            if requirement.name == PROJECT:
                yield from required(requirement.extras, options)
            else:
                yield requirement


def test_the_lock_holds_what_the_pipelines_use():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *map(Requirement, project["dependencies"]),
        *required(["azure", "eval"], project["optional-dependencies"]),
    ]
    versions = locked("requirements.lock")
    for requirement in requirements:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])
    assert not {PROJECT, "torch", "transformers"} & set(versions)
    wanted = (EXAMPLES / "tools.in").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in wanted if line[0] != "#"} <= set(locked("tools.lock"))


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
        words = [word.replace("$FLOW", "chat") for word in words]  # the shell fills the variable in
        args = cli._parser(words[0]).parse_args(words)  # ends the test where one is unknown
        assert callable(args.run)
