"""What editors read: the flows, the development container and the notebook."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from images import BASE, PACKAGES, store_with_base
from tiny_endpoint import KEY, running

ROOT = Path(__file__).resolve().parents[1]
FLOWS = sorted((ROOT / "flows").glob("*/flow.dag.yaml"))
NOTEBOOK = ROOT / "examples/notebooks/tour.ipynb"

# The tables of the page "Flow YAML Schema" of Prompt flow's documentation, which describe the schema.
# The last keys of a flow and of a node are in the schema, but not on the page.
TYPES = {"int", "double", "bool", "string", "list", "object"}
FLOW_KEYS = {
    *("$schema", "inputs", "outputs", "nodes", "node_variants", "environment"),
    *("additional_includes", "display_name", "description", "type", "tags"),
}
INPUT_KEYS = {"type", "description", "default", "is_chat_input", "is_chat_history"}
OUTPUT_KEYS = {"type", "description", "reference", "is_chat_output"}
NODE_KEYS = {
    *("name", "type", "inputs", "source", "provider", "connection", "api", "module"),
    *("use_variants", "activate", "aggregation", "comment"),
}
SOURCE_TYPES = {"code", "package", "package_with_prompt"}


@pytest.mark.parametrize("file", FLOWS, ids=[file.parent.name for file in FLOWS])
def test_a_flow_has_only_fields_of_the_published_schema(file):
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert flow["$schema"].endswith("/promptflow/latest/Flow.schema.json")
    assert set(flow) <= FLOW_KEYS
    for item in flow["inputs"].values():
        assert set(item) <= INPUT_KEYS and item["type"] in TYPES
    for item in flow["outputs"].values():
        assert set(item) <= OUTPUT_KEYS and item["type"] in TYPES
    variants = flow.get("node_variants", {}).values()
    in_variants = [v["node"] for item in variants for v in item["variants"].values()]
    for node in [*flow["nodes"], *in_variants]:
        assert set(node) <= NODE_KEYS
        if "source" in node:
            assert node["source"]["type"] in SOURCE_TYPES
            assert set(node["source"]) <= {"type", "path", "tool"}


# From the page "Dev Container Metadata Reference" of the Development Containers Specification.
CONTAINER_TYPES = {
    "$schema": str,
    "name": str,
    "image": str,
    "hostRequirements": dict,
    "onCreateCommand": str,
    "postAttachCommand": str,
    "remoteEnv": dict,
    "otherPortsAttributes": dict,
    "customizations": dict,
}


CONTAINER_FILE = ".devcontainer/devcontainer.json"
# The image that the file names has Debian bookworm with Python 3.11, git and make, and this user.
CONTAINER_PACKAGES = f"{PACKAGES},git,make"
CONTAINER_USER = "vscode"
WORKSPACE = "/workspaces/phi3-promptflow"


def test_the_development_container():
    container = json.loads((ROOT / CONTAINER_FILE).read_text(encoding="utf-8"))
    for name, value in container.items():
        assert isinstance(value, CONTAINER_TYPES[name]), name
    requirements = container["hostRequirements"]
    assert isinstance(requirements["cpus"], int)
    for name in ("memory", "storage"):
        assert re.fullmatch(r"\d+([tgmk]b)?", requirements[name])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert container["onCreateCommand"] == "make .venv/.local" and "$(VENV)/.local:" in makefile
    assert "make quickstart" in container["postAttachCommand"]


@pytest.mark.long  # makes an image of Debian's packages, and installs the package and torch
def test_the_development_container_runs_its_command_and_the_quickstart(tmp_path):
    settings = json.loads((ROOT / CONTAINER_FILE).read_text(encoding="utf-8"))
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True, timeout=300)
    with store_with_base(tmp_path / "images", CONTAINER_PACKAGES) as images:
        container = images.buildah("from", "--pull-never", BASE)
        path = images.buildah("run", container, "--", "printenv", "PATH")
        images.buildah("run", container, "--", "useradd", "--create-home", CONTAINER_USER)
        images.buildah("copy", "-q", "--chown", CONTAINER_USER, container, clone, WORKSPACE)

        def run(command, *options):
            words = ["--network", "host", "--user", CONTAINER_USER, "--workingdir", WORKSPACE]
            words += ["-e", f"HOME=/home/{CONTAINER_USER}", *images.mounts(), *options]
            return images.buildah("run", *words, container, "--", "sh", "-c", command)

        run(settings["onCreateCommand"])
        search_path = settings["remoteEnv"]["PATH"].replace("${containerEnv:PATH}", path)
        variable = "PATH=" + search_path.replace("${containerWorkspaceFolder}", WORKSPACE)
        # The quickstart leaves endpoints running, outside of the container after its end: remove them.
        commands = (
            "make quickstart MODEL=tiny && phi3 doctor --for local serve batch train endpoint"
        )
        output = run(
            f"({commands}); code=$?; phi3 quickstart --remove --yes; exit $code", "-e", variable
        )
    assert re.search(r"trained phrasings +480 of 480 +\S+ +(99|100)\.\d%", output)
    assert "open      http://127.0.0.1:" in output


def test_the_notebook_is_valid_and_has_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


@pytest.mark.slow  # starts an endpoint, a kernel and six commands
def test_the_notebook_runs(tiny_model_dir, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PHI3_CONNECTION_PHI3_KEY", KEY)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with running(tiny_model_dir) as base:
        monkeypatch.setenv("PHI3_CONNECTION_PHI3_ENDPOINT", f"{base}/score")
        client = NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert '"city"' in text or "'city'" in text
    assert text.count("2 lines, 0 failed") == 2
    assert "exit code 0" in text
