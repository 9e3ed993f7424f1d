"""Puts what the commands upload and run into the wheel, beside `phi3_ops`.

A hook and not `force-include`: that would take Prompt flow's by-products along, which hold prompts and
answers, and would put copies in the way of an editable install.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = (
    "flows",
    "connections",
    "scripts/training",
    "scripts/serving",
    "scripts/azure",
    "examples/ci",
)
FILES = ("scripts/phi3.example.yaml",)
TARGET = "phi3_ops_assets"


class AssetsHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable":
            return
        root = Path(self.root)
        files = [root / name for name in FILES]
        files += [file for folder in FOLDERS for file in (root / folder).rglob("*")]
        for file in files:
            parts = file.relative_to(root).parts
            left_out = any(p.startswith(".") or p == "__pycache__" for p in parts)
            if file.is_file() and not left_out:
                build_data["force_include"][str(file)] = "/".join((TARGET, *parts))
