"""Parts of the documentation that are generated, and the check that they are up to date.

`WRITE_DOCS=1 python -m pytest tests/test_docs.py tests/phi3_tools/test_fault_matrix.py` rewrites them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |\n" for r in lines
    )


def check_part(page: str, name: str, generated: str) -> None:
    """Assert that the part between `<!-- name -->` and `<!-- end -->` of a page is up to date."""
    path, begin, end = DOCS / page, f"<!-- {name} -->\n", "<!-- end -->"
    before, marker, rest = path.read_text(encoding="utf-8").partition(begin)
    assert marker, f"{page} has no part {name!r}"
    written, _, after = rest.partition(end)
    if os.environ.get("WRITE_DOCS"):
        path.write_text(f"{before}{begin}{generated}{end}{after}", encoding="utf-8")
        pytest.skip(f"wrote {name!r} into {page}")
    assert written == generated, f"{page} is stale; WRITE_DOCS=1 rewrites it"


def write_or_check(path: Path, generated: str) -> None:
    """Assert that a generated file is up to date."""
    if os.environ.get("WRITE_DOCS"):
        path.write_text(generated, encoding="utf-8")
        pytest.skip(f"wrote {path.name}")
    assert path.read_text(encoding="utf-8") == generated, (
        f"{path} is stale; WRITE_DOCS=1 rewrites it"
    )
