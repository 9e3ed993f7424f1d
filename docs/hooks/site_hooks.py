"""Hooks of MkDocs: pages that are made from other files or from the code, and texts for language models.

The interface is described on the page "Plugins" of MkDocs' documentation, in the section "Events".
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_llms import full_text, index_text
from site_reference import reference_pages

ROOT = Path(__file__).resolve().parents[2]
# Page of the site -> file of the repository whose text it shows.
COPIED = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "licence.md": "LICENSE",
    "reference/recipes.md": "scripts/training/recipes/README.md",
}
_PAGES = {source: page for page, source in COPIED.items()}
_LINK = re.compile(r"(\]\(|src=\")(?!https?:|#|mailto:)([^)\"#]+)((?:#[^)\"]*)?[)\"])")
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)
_TEXTS: dict[str, tuple[str, str]] = {}  # page -> its title and its Markdown


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files in docs/, and the files that pages link to."""
    texts = {page: _copied_text(page, source) for page, source in COPIED.items()}
    for page, text in {**texts, **reference_pages(ROOT)}.items():
        files.append(File.generated(config, page, content=text))
    for page in files.documentation_pages():
        for target in _linked_files(page.content_string, page.src_uri):
            name = f"files/{target}"
            if name not in files.src_uris:
                files.append(
                    File.generated(config, name, content=(ROOT / target).read_text("utf-8"))
                )
    _TEXTS.clear()
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository at their copies on the site."""
    text = _LINK.sub(lambda link: _site_link(link, page.file.src_uri), markdown)
    _TEXTS[page.file.src_uri] = (str(page.title), text)
    return text


def on_post_build(config: MkDocsConfig) -> None:
    """Write `llms.txt` and `llms-full.txt`; see "The /llms.txt file" on llmstxt.org."""
    site = Path(config.site_dir)
    site.joinpath("llms.txt").write_text(index_text(config, _TEXTS), encoding="utf-8")
    site.joinpath("llms-full.txt").write_text(full_text(config, _TEXTS), encoding="utf-8")


def _copied_text(page: str, source: str) -> str:
    """Return a file of the repository as a page, with its links relative to that page."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source == "LICENSE":
        return f"# Licence\n\n{text}"
    to_root = "../" * (page.count("/") + 1)
    folder = Path(source).parent.as_posix()
    prefix = "" if folder == "." else f"{folder}/"

    def relative(link: re.Match[str]) -> str:
        target = f"{prefix}{link[2]}"
        inside = target.removeprefix("docs/")
        moved = "../" * page.count("/") + inside if inside != target else f"{to_root}{target}"
        return f"{link[1]}{moved}{link[3]}"

    head = "---\nhide: [navigation]\n---\n" if page == "index.md" else ""
    diagram = "![The rooms and their imports](images/architecture.svg)"
    return head + _DIAGRAM.sub(diagram, _LINK.sub(relative, text))


def _repository_target(target: str, page: str) -> str | None:
    """Return the path in the repository that a link of a page leads to, or None if it is in docs/."""
    path = (ROOT / "docs" / page).parent / target
    relative = Path(*_normal_parts(path.relative_to(ROOT).parts)).as_posix()
    return None if relative.startswith("docs/") else relative


def _normal_parts(parts: tuple[str, ...]) -> list[str]:
    normal: list[str] = []
    for part in parts:
        if part == "..":
            normal.pop()
        else:
            normal.append(part)
    return normal


def _linked_files(text: str, page: str) -> list[str]:
    """Return the files of the repository, other than copied ones, that a page links to."""
    targets = [_repository_target(link[2], page) for link in _LINK.finditer(text)]
    return [t for t in targets if t and t not in _PAGES and (ROOT / t).is_file()]


def _site_link(link: re.Match[str], page: str) -> str:
    target = _repository_target(link[2], page)
    if target is None:
        return link[0]
    moved = _PAGES.get(target, f"files/{target}")
    return f"{link[1]}{'../' * page.count('/')}{moved}{link[3]}"
