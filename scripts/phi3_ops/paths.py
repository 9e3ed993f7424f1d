"""Where the uploaded code, the flows and the shipped data lie: in the repository, or in the wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_REPOSITORY = PACKAGE.parent.parent
_INSTALLED = PACKAGE.parent / "phi3_ops_assets"
ROOT = _REPOSITORY if (_REPOSITORY / "flows").is_dir() else _INSTALLED

FLOWS = ROOT / "flows"
TRAINING = ROOT / "scripts" / "training"
SERVING = ROOT / "scripts" / "serving"
AZURE = ROOT / "scripts" / "azure"
CONNECTIONS = ROOT / "connections"
CI_EXAMPLES = ROOT / "examples" / "ci"
SAMPLE_DATA = PACKAGE / "samples" / "facts.jsonl"
GENERAL_CHATS = PACKAGE / "samples" / "general.jsonl"  # unlike SAMPLE_DATA: shows what is forgotten

EXAMPLE_CONFIG = ROOT / "scripts" / "phi3.example.yaml"

WORKDIR = Path(".phi3")


def flows_folder() -> Path:
    """Return the folder of the flows: that of the project in the current folder, else the shipped flows.

    A project's folder `flows` has a lock, as `phi3 init` creates it.
    """
    project = Path.cwd() / "flows"
    return project if (project / "flows.lock.json").is_file() else FLOWS
