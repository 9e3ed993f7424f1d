"""The files of a new project: the template, and copies of the shipped flows and examples."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from .. import paths
from ..files import new_folder, write_jsonl
from ..flows import copy_flow

_TEMPLATE = Path(__file__).parent / "template"
# Files of the template that have another name in the project: Git and test runners ignore them here.
_RENAMED = {"gitignore": ".gitignore", "tests/test_flows.txt": "tests/test_flows.py"}
_PIPELINE = Path(".github/workflows/flow.yml")


def create_project(folder: Path) -> list[Path]:
    """Create a project, complete or not at all.

    Args:
        folder: folder of the project; it must be empty or not exist.

    Returns:
        The files, relative to the folder, sorted.

    Raises:
        OpsError: the folder is not empty, or cannot be written.
    """
    with new_folder(folder) as content:
        shutil.copytree(_TEMPLATE, content)
        for name, new_name in _RENAMED.items():
            (content / name).rename(content / new_name)
        _copy_shipped_files(content)
        _write_test_data(content / "data")
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _copy_shipped_files(folder: Path) -> None:
    """Copy the flows, the connection, the configuration and the pipeline into a project."""
    for flow in sorted(file.parent for file in paths.FLOWS.glob("*/flow.dag.yaml")):
        copy_flow(flow, folder / "flows" / flow.name)
    copies = {
        paths.FLOWS / "flows.lock.json": "flows/flows.lock.json",
        paths.CONNECTIONS / "phi3.yaml": "connections/phi3.yaml",
        paths.EXAMPLE_CONFIG: "phi3.yaml",
        paths.CI_EXAMPLES / "github-actions.yml": _PIPELINE.as_posix(),
    }
    for source, target in copies.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)


def _write_test_data(folder: Path) -> None:
    """Write the first question of each answer of `faq.csv` as test data of the flow `chat`."""
    with (folder / "faq.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    questions: dict[str, str] = {}
    for row in rows:
        questions.setdefault(row["answer"], row["question"])
    write_jsonl(
        folder / "test.jsonl",
        [{"question": question, "ground_truth": answer} for answer, question in questions.items()],
    )
