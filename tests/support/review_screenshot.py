"""Take the picture of the review page for the documentation.

`python tests/support/review_screenshot.py URL docs/images`; `phi3 review` prints URL. The review must
have two runs with scores.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright


def main(url: str, folder: Path) -> None:
    """Rate the answers of the first line that is not judged, and take the picture."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        page = browser.new_page(viewport={"width": 1200, "height": 775})
        page.goto(url)
        expect(page.locator(".answer")).to_have_count(2)
        page.get_by_role("button", name="Rate answer A 5").click()
        page.get_by_role("button", name="Rate answer B 1").click()
        expect(page.locator(".scores")).to_have_count(2)
        page.screenshot(path=folder / "review.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
