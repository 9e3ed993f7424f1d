"""The folder of a quickstart."""

from __future__ import annotations

import re
from pathlib import Path

from .. import paths
from ..files import find_foreign_file, record_files

GIT_IGNORE = ".gitignore"


def default_workdir(source: Path) -> Path:
    """Return the folder for a quickstart's files: each data file has its own.

    Args:
        source: data to train and test with.
    """
    if source == paths.SAMPLE_DATA:
        return paths.WORKDIR
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem).strip("-") or "data"
    return Path(f"{paths.WORKDIR}-{name.lower()}")


def ignore_in_git(workdir: Path) -> None:
    """Write a `.gitignore` that makes Git ignore a folder, if the folder has none of the user's.

    Args:
        workdir: the folder, which contains prompts, answers and weights.
    """
    if find_foreign_file(workdir, [GIT_IGNORE]):
        return
    record_files(workdir, [GIT_IGNORE])
    (workdir / GIT_IGNORE).write_text("*\n", encoding="utf-8")
