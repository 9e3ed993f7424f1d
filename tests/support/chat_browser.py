"""What the browser tests of the chat page have in common."""

from __future__ import annotations

from typing import Any

# Chromium writes every failed request to the console.
REFUSED = "the server responded with a status of 400"


def ask(page: Any, question: str, *, wait: bool = True) -> None:
    """Ask a question on the page, and wait until the answer is complete."""
    from playwright.sync_api import expect

    number = page.locator("#log .question").count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    if wait:
        # Until the page has taken this question, the button is still that of the last one.
        expect(page.locator("#log .question")).to_have_count(number + 1)
        expect(page.get_by_role("button", name="Send")).to_be_visible()


def last(page: Any) -> Any:
    """Return the last answer on the page."""
    return page.locator(".answer").last
