"""The HTML report in a real browser: it can be read, filtered and folded; no answer becomes active."""

from __future__ import annotations

import re

import pytest

from browser import CHROMIUM
from contrast import CONTRAST
from hostile_answers import HOSTILE, hostile_report
from phi3_ops.comparison.report import render_report
from phi3_ops.terminal import escape_invisible

TALLEST_LINE = """Math.max(
    ...[...document.querySelectorAll('.listing tbody tr')].map(row => row.offsetHeight))"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "compare.html"
    path.write_text(render_report(hostile_report(folder)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def look(chromium, address):
    """Opens the page; at the end, fails if the page loaded, logged or opened anything."""
    contexts, happened = [], []

    def open_page(**words):
        context = chromium.new_context(**words)
        contexts.append(context)
        page = context.new_page()
        page.on("dialog", lambda dialog: (happened.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: happened.append(str(error)))
        page.on("console", lambda message: happened.append(message.text))
        page.on("request", lambda r: r.url == address or happened.append(r.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert happened == []


def visible_lines(page):
    """Numbers of the visible lines."""
    cells = page.locator(".listing tbody tr:visible .line-number").all_inner_texts()
    return {int(text) for text in cells}


def test_hostile_answers_do_nothing(look, address):
    page = look()
    for fold in page.locator("summary").all():
        fold.click()
    page.mouse.move(300, 300)
    page.wait_for_timeout(300)
    assert page.url == address
    assert page.locator("script, iframe, img, a, base, .listing h1").count() == 0
    assert page.evaluate("document.querySelectorAll('style').length") == 1
    text = page.locator(".listing").inner_text()
    for answer in HOSTILE:
        flat = re.sub(r"\s+", " ", escape_invisible(answer)[:20_000]).strip()
        assert flat in re.sub(r"\s+", " ", text), answer[:40]
    assert "49" not in page.locator(".listing td:has-text('7 * 7')").first.inner_text()


def test_filters_work_without_script(look):
    page = look(java_script_enabled=False)
    everything = visible_lines(page)
    assert len(everything) == len(HOSTILE) + 24
    page.get_by_label(re.compile("failed in a run: 2")).check()
    assert visible_lines(page) == {20, 21}
    parts = []
    for outcome in ("loss", "win", "tie"):
        box = page.locator(f"#pick-{outcome}0")
        box.check()
        parts.append(visible_lines(page))
        label = box.locator("xpath=..").inner_text()
        assert label.endswith(f" {len(parts[-1])}")
    assert set.union(*parts) == everything
    assert sum(map(len, parts)) == len(everything)
    page.locator("#pick-all").check()
    assert visible_lines(page) == everything


def test_filters_of_a_shortened_page_count_its_lines_and_all_lines(chromium, tmp_path):
    path = tmp_path / "short.html"
    report = hostile_report(tmp_path)
    path.write_text(render_report(report, rows=12), encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert page.get_by_text("Show, of the 12 lines on this page").is_visible()
    outcomes = report.comparisons[0].result.outcomes
    totals = {"loss": outcomes.losses, "win": outcomes.wins, "tie": outcomes.ties}
    for outcome, total in totals.items():
        box = page.locator(f"#pick-{outcome}0")
        label = box.locator("xpath=..").inner_text().split()
        box.check()
        shown = len(visible_lines(page))
        assert label[1:] == ([str(shown)] if shown == total else [str(shown), "of", str(total)])
    page.close()


def test_a_phone_shows_every_number_of_the_tables(look):
    page = look(viewport={"width": 390, "height": 800})
    for cell in page.locator(".cards td:visible").all():
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.locator(".cards td[data-label='interval']").first.is_visible()
    for label in page.locator("fieldset label").all():
        box = label.bounding_box()
        assert box["x"] + box["width"] <= 390


def test_filters_work_from_the_keyboard(look):
    page = look()
    page.locator("#pick-all").focus()
    page.keyboard.press("ArrowDown")
    assert visible_lines(page) == {20, 21}


def test_long_answers_are_clipped_until_the_reader_wants_all(look):
    page = look(java_script_enabled=False)
    clipped = page.locator("details:has-text('(100,000 characters)')").first
    preview, full_text = clipped.locator(".preview"), clipped.locator("> .text")
    assert preview.is_visible() and not full_text.is_visible()
    assert clipped.bounding_box()["height"] < 300
    clipped.locator(".toggle").click()
    assert full_text.is_visible() and not preview.is_visible()
    assert "The rest of the text is not shown." in clipped.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_fits_every_screen_and_can_be_read(look, scheme, width):
    page = look(color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Each line of the data takes at most about a screen, whatever was answered.
    assert page.evaluate(TALLEST_LINE) <= (1400 if width == 390 else 800)
    poor = page.evaluate(CONTRAST)
    assert poor == []
