"""A project of one's own: its files, and that it works."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from phi3_ops import paths
from phi3_ops.azure.config import load_config
from phi3_ops.errors import OpsError
from phi3_ops.files.json_files import read_jsonl
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.lock import flow_states
from phi3_ops.project.layout import create_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projects") / "shop"
    create_project(folder)
    return folder


def test_the_files(tmp_path):
    folder = tmp_path / "shop"
    names = {path.as_posix() for path in create_project(folder)}
    assert names >= {
        *(".gitignore", "README.md", "phi3.yaml", "connections/phi3.yaml"),
        *("data/faq.csv", "data/test.jsonl", "tests/test_flows.py", "flows/flows.lock.json"),
        *(".github/workflows/flow.yml", "flows/chat/flow.dag.yaml", "flows/eval/thresholds.yaml"),
    }
    assert all((folder / name).is_file() for name in names)


def test_a_folder_with_files_is_refused(project):
    with pytest.raises(OpsError, match="is not empty"):
        create_project(project)


def test_the_flows_are_locked(project):
    assert {state.status for state in flow_states(project / "flows")} == {"locked"}


def test_the_test_of_the_project_passes(project):
    names = {"__name__": "test_flows", "__file__": str(project / "tests/test_flows.py")}
    exec((project / "tests/test_flows.py").read_text(encoding="utf-8"), names)
    for folder in names["FOLDERS"]:
        names["test_it_can_be_loaded"](folder)


def test_the_configuration_has_only_placeholders_to_fill_in(project):
    with pytest.raises(OpsError, match="still placeholders"):
        load_config(project / "phi3.yaml")


def test_the_data_have_several_questions_for_each_answer(project):
    with (project / "data/faq.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = [row["answer"] for row in rows]
    assert min(answers.count(answer) for answer in set(answers)) >= 5
    questions = read_jsonl(project / "data/test.jsonl")
    assert {row["ground_truth"] for row in questions} == set(answers)


def test_the_commands_use_the_flows_of_the_project(project, monkeypatch):
    monkeypatch.chdir(project)
    assert paths.flows_folder() == project / "flows"
    assert FlowDefinition.read(Path("qa")).folder == project / "flows" / "qa"


def test_elsewhere_the_commands_use_the_shipped_flows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.flows_folder() == paths.FLOWS
    assert FlowDefinition.read(Path("qa")).folder == paths.FLOWS / "qa"
