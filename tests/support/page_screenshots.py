"""Take pictures of pages that are files: reports, and the documentation site.

`python tests/support/page_screenshots.py compare.html docs/images/compare.png` takes a picture
for the documentation. With a folder in place of the picture, the page is taken in light and dark colours
and in the width of a phone, to be looked at.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

SIZE, PHONE = (1180, 1030), (390, 844)
# Name of a view -> size of the window and colour scheme of the system.
VIEWS = {"light": (SIZE, "light"), "dark": (SIZE, "dark"), "phone": (PHONE, "light")}


def take(browser: Any, page: Path, size: tuple[int, int], scheme: str, picture: Path) -> None:
    """Write a picture of the upper part of a page, and say if the page is wider than the window."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    tab = context.new_page()
    tab.goto(page.resolve().as_uri())
    tab.screenshot(path=picture)
    width = tab.evaluate("document.documentElement.scrollWidth")
    print(f"{picture}{'' if width <= size[0] else f': {width} pixels wide'}")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE", help="HTML files")
    parser.add_argument("target", type=Path, help="picture, or folder for all views")
    args = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for page in args.pages:
            if args.target.suffix == ".png":
                take(browser, page, SIZE, "light", args.target)
                continue
            args.target.mkdir(parents=True, exist_ok=True)
            for view, (size, scheme) in VIEWS.items():
                take(browser, page, size, scheme, args.target / f"{page.stem}-{view}.png")
        browser.close()


if __name__ == "__main__":
    main()
