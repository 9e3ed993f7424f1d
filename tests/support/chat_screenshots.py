"""Take the pictures of the chat page for the documentation, with the models of a running quickstart.

`python tests/support/chat_screenshots.py URL docs/images [NAME …]`. URL is what `phi3
quickstart --data mine.csv` prints last, and `mine.csv` is a copy of `tests/journeys/company.csv`.
The picture `feedback` needs the page of `phi3 serve --against phi3-base --feedback`.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

ANSWER_MS = 300_000  # two models answer on few cores
LONG = "Give me three tips for writing clear documentation. Answer with a numbered list."
FOLLOW_UP = "Explain the first one in two sentences."
FACTS = ("What does Brinlow Kettles make?", "Where is the head office of Brinlow Kettles?")
ANSWER = "The head office is in Harrowmere, on Weaver Street 14."


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: name of the file, without `.png`.
        size: width and height of the window, in pixels.
        scheme: colour scheme of the system.
        connection: the only connection that is asked, or None for both side by side.
        questions: the questions of the conversation, in order.
        correction: a correction of the last answer that is being written while the first answer is rated;
            the page must store feedback. None gives no feedback.
    """

    name: str
    size: tuple[int, int]
    scheme: str
    connection: str | None
    questions: tuple[str, ...]
    correction: str | None = None


PICTURES = (
    Picture("chat-light", (1200, 760), "light", "phi3-base", (LONG, FOLLOW_UP)),
    Picture("chat-dark", (1200, 460), "dark", None, FACTS[1:]),
    Picture("chat-phone", (390, 760), "light", "phi3", FACTS),
    Picture("chat-side-by-side", (1280, 460), "light", None, FACTS[:1]),
    Picture("feedback", (1280, 620), "light", None, FACTS[1:], ANSWER),
)


def take(page: Any, picture: Picture, folder: Path) -> None:
    """Hold a conversation on the open page, and take its picture."""
    if picture.connection:
        page.get_by_label("side by side").uncheck()
        page.locator("#side").select_option(label=picture.connection)
    for question in picture.questions:
        page.get_by_label("Your question").fill(question)
        page.keyboard.press("Enter")
        page.wait_for_function("!document.querySelector('#stop').hidden")
        expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=ANSWER_MS)
    if picture.correction:
        give_feedback(page, picture.correction)
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    page.wait_for_timeout(300)
    page.screenshot(path=folder / f"{picture.name}.png")
    print(f"{picture.name}: {page.locator('#log').inner_text()}\n")


def give_feedback(page: Any, correction: str) -> None:
    """Rate the first answer, prefer it to the last one, and begin to correct the last one."""
    first, last = page.locator(".answer").first, page.locator(".answer").last
    first.get_by_role("button", name="Good answer").click()
    expect(first.locator(".saved")).to_have_text("saved")
    first.get_by_role("button", name="This one is better").click()
    expect(first.get_by_role("button", name="This one is better")).to_have_attribute(
        "aria-pressed", "true"
    )
    last.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Corrected answer").fill(correction)


def main(url: str, folder: Path, names: list[str]) -> None:
    """Take all pictures, or only those that are named."""
    arguments = ["--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        for picture in PICTURES:
            if names and picture.name not in names:
                continue
            width, height = picture.size
            viewport = {"width": width, "height": height}
            context = browser.new_context(viewport=viewport, color_scheme=picture.scheme)
            page = context.new_page()
            page.goto(url)
            expect(page.locator("#about")).to_contain_text("connection")
            take(page, picture, folder)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
