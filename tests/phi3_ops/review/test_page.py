"""The page of a review in a real browser: the keys, what is hidden, what is stored, and the end."""

from __future__ import annotations

import json
import shutil
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from browser import CHROMIUM
from contrast import CONTRAST
from phi3_ops.review.store import read_judgements
from served_review import HANG_S, phi3_review

NOT_RUNNING = "Failed to load resource: net::ERR_CONNECTION_REFUSED"
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("review")
    data = [
        {"question": f"What is {n} times 8? {HOSTILE}", "ground_truth": str(n * 8)}
        for n in range(4)
    ]
    write(folder / "data.jsonl", data)
    for name in ("base", "tuned"):
        rows = [
            {"line_number": n, "answer": f"{name} {HOSTILE}", "correctness": 3 - (name == "base")}
            for n in range(4)
        ]
        write(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture
def look(chromium):
    """Opens a page; at the end, no error and no request to another host may have occurred."""
    problems, contexts = [], []

    def open_page(address, noise=None, **words):
        context = chromium.new_context(**words)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(HANG_S * 1000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.text == noise or problems.append(message.text))
        page.on(
            "request",
            lambda request: (
                urlsplit(request.url).hostname == "127.0.0.1" or problems.append(request.url)
            ),
        )
        page.goto(address)
        expect(page.locator("#number")).to_contain_text("Line")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


WORDS = ("base.jsonl", "tuned.jsonl", "--data", "data.jsonl")


@pytest.fixture(scope="module")
def review(folder):
    """A review that the tests share, in the order of this file: the last one ends it."""
    with phi3_review(*WORDS, cwd=folder) as review:
        yield review


def saved(page, words):
    expect(page.locator("#status")).to_have_text(f"{words}, saved")


def stored(folder, name):
    return read_judgements(str(folder / f"{name}.jsonl"))


def test_a_review_with_the_keys_alone(look, review, folder):
    page = look(review.url)
    answers = page.locator(".answer")
    expect(answers).to_have_count(2)
    expect(page.locator(".scores")).to_have_count(0)
    assert ".jsonl" not in page.locator("body").inner_text()
    page.keyboard.press("4")
    saved(page, "Answer A rated 4")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")
    saved(page, "Answer B rated 2")
    expect(page.locator("#progress")).to_have_text("1 of 4 judged")
    expect(page.locator(".scores")).to_have_count(2)  # the line is judged now
    page.keyboard.press("f")
    saved(page, "Answer B flagged")
    page.keyboard.press("ArrowLeft")
    saved(page, "Answer A is better")
    page.keyboard.press("=")
    saved(page, "Equally good")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("n p 5 is typed")
    page.keyboard.press("Control+Enter")
    saved(page, "Correction")
    expect(page.locator(".edited .text")).to_have_text("n p 5 is typed")
    page.keyboard.press("n")
    expect(page.locator("#number")).to_contain_text("Line 2 of 4")
    page.keyboard.press("s")
    expect(page.locator(".scores")).to_have_count(2)
    page.keyboard.press("p")
    expect(page.locator("#number")).to_contain_text("Line 1 of 4")
    kinds = [(each.kind, each.rating, each.edited) for each in stored(folder, "base")]
    kinds += [(each.kind, each.rating, each.edited) for each in stored(folder, "tuned")]
    assert {rating for _, rating, _ in kinds if rating} == {4, 2}
    assert ("edit", None, "n p 5 is typed") in kinds
    assert page.evaluate("window.hacked") is None


def test_after_a_restart_the_review_goes_on(look, folder, tmp_path):
    for name in ("base", "tuned", "data"):
        shutil.copy(folder / f"{name}.jsonl", tmp_path)
    with phi3_review(*WORDS, cwd=tmp_path) as review:
        page = look(review.url, noise=NOT_RUNNING)
        page.get_by_role("button", name="Rate answer A 5").click()
        saved(page, "Answer A rated 5")
        page.get_by_role("button", name="B is better").click()
        saved(page, "Answer B is better")
    page.keyboard.press("n")  # the process was killed
    expect(page.locator("#error")).to_contain_text("`phi3 review` does not answer; start it again")
    page.context.close()
    with phi3_review(*WORDS, cwd=tmp_path) as again:
        page = look(again.url)
        expect(page.locator("#number")).to_contain_text("Line 2 of 4")
        page.keyboard.press("p")
        pressed = page.locator("button[aria-pressed=true]")
        assert pressed.all_inner_texts() == ["5", "B is better"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_fits_a_phone(look, review, scheme):
    page = look(review.url, color_scheme=scheme, viewport={"width": 390, "height": 760})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    assert page.evaluate(CONTRAST) == []


def test_the_end_reveals_the_runs(look, review):
    page = look(review.url)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="End the review").click()
    expect(page.locator("#summary")).to_be_hidden()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="End the review").click()
    expect(page.locator("#summary")).to_contain_text("Agreement with base.jsonl: correctness")
    page.reload()
    expect(page.locator("#summary")).to_contain_text("tuned.jsonl")
