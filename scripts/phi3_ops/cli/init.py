"""`phi3 init`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..terminal import counted, print_text
from ._next_step import print_next


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Lay out a project of your own in a new folder: flows with their lock, a connection, phi3.yaml, "
        "example data, tests, a pipeline for GitHub Actions, a .gitignore and a README.md that says what "
        "each file is for. An existing folder must be empty."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project")


def run(args: argparse.Namespace) -> int:
    from ..project import create_project

    files = create_project(args.folder)
    print_text(f"{args.folder}: {counted(len(files), 'file')}; README.md describes them")
    when = f"in {shlex.quote(str(args.folder))}"
    print_next("phi3", "quickstart", "--data", "data/faq.csv", when=when)
    return 0
