"""The documentation site: it builds without a warning, loads nothing from elsewhere, and is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phi3_ops.cli import COMMANDS
from phi3_ops.cli.flow import SUBCOMMANDS
from phi3_tools import __all__ as PUBLIC

ROOT = Path(__file__).resolve().parents[1]
# What a browser loads by itself; links that a reader clicks are not among it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//[^>]+>"
    r"|<link[^>]+rel=[\"']?(?:stylesheet|preload|icon|preconnect)[^>]+href=[\"']?(?:https?:)?//[^>]+>"
)
LOADED_BY_STYLES = re.compile(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\s;]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site. A strict build fails on a link, an anchor or a page that does not exist."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        assert not LOADED.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not LOADED_BY_STYLES.findall(sheet.read_text(encoding="utf-8")), sheet


def test_every_command_has_its_options_there(site):
    text = (site / "reference/options.html").read_text(encoding="utf-8")
    commands = [*COMMANDS, *(f"flow {name}" for name in SUBCOMMANDS)]
    assert not [name for name in commands if f">phi3 {name}<" not in text]
    assert str(ROOT) not in text
    assert str(Path.home()) not in text


def test_every_public_name_is_there(site):
    pages = [site / f"reference/{name}.html" for name in ("client", "exceptions")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    ids = set(re.findall(r'id="phi3_tools\.(?:\w+\.)*(\w+)"', text))
    assert set(PUBLIC) <= ids


def test_search_works_without_a_server(site):
    index = (site / "search/search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ")
    assert "rotate" in index


def test_texts_for_language_models(site):
    index = (site / "llms.txt").read_text(encoding="utf-8")
    pages = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", index, re.MULTILINE)
    assert len(pages) > 30
    assert all((site / page).is_file() for page in pages)
    full = (site / "llms-full.txt").read_text(encoding="utf-8")
    assert all(f"<!-- {page.removesuffix('.html')}.md -->" in full for page in pages)
