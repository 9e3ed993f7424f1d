"""Feedback on the chat page in a browser: with the mouse, with the keyboard, and when saving fails."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from browser import CHROMIUM
from chat_browser import ask, last
from contrast import CONTRAST
from hostile_answers import HOSTILE
from phi3_ops.feedback.records import HistoryMessage
from phi3_ops.feedback.store import FeedbackStore
from phi3_ops.pf.connections import delete_connection, save_connection
from scripted_endpoint import scripted_endpoint
from served_flow import phi3_serve

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

NAMES = ("phi3", "phi3-base")


@pytest.fixture(scope="module")
def endpoints():
    with scripted_endpoint() as tuned, scripted_endpoint() as base:
        for name, endpoint in zip(NAMES, (tuned, base), strict=True):
            save_connection(name, {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        tuned.answers["Capital?"], base.answers["Capital?"] = "Lyon.", "Paris."
        yield tuned, base
        for name in NAMES:
            delete_connection(name)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("store") / "feedback.sqlite"


@pytest.fixture(scope="module")
def url(endpoints, file):
    words = ("--against", "phi3-base", "--feedback", "--feedback-store", file)
    with phi3_serve(*words) as served:
        yield served.url


@pytest.fixture
def stored(file, url):
    """Returns the records that were stored in this test."""
    before = len(FeedbackStore(file).records())
    return lambda: FeedbackStore(file).records()[before:]


@pytest.fixture
def open_chat(look, url):
    """Opens the page, for one connection unless both are wanted."""

    def open_page(side_by_side=False, **words):
        page = look(url, **words)
        expect(page.locator("#about")).to_contain_text("connections phi3")
        if not side_by_side:
            page.get_by_label("side by side").uncheck()
        return page

    return open_page


def button(page, name):
    return last(page).get_by_role("button", name=name, exact=True)


def saved(page):
    expect(last(page).locator(".saved")).to_have_text("saved")
    expect(page.get_by_role("status")).to_have_text("Feedback saved")


def test_thumbs_are_saved_at_once_and_stay_after_a_reload(open_chat, stored, file):
    page = open_chat()
    note = page.get_by_role("note")
    expect(note).to_be_visible()
    expect(note).to_contain_text("is stored, with the question, the answer and the earlier")
    expect(note.locator("code")).to_have_text(str(file))
    expect(page.locator(".empty")).to_contain_text("and your feedback on the server")
    ask(page, "Hi")
    ask(page, "Capital?")
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "false")
    button(page, "Bad answer").click()
    saved(page)
    button(page, "Bad answer").click()  # is pressed already
    button(page, "Good answer").click()
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "true")
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "false")
    down, up = stored()
    assert (down.kind, up.kind, up.turn) == ("thumbs_down", "thumbs_up", 2)
    assert (up.question, up.answer, up.connection, up.against) == (
        *("Capital?", "Lyon.", "phi3"),
        None,
    )
    assert up.history == (HistoryMessage("user", "Hi"), HistoryMessage("assistant", "Hi"))
    assert up.conversation == down.conversation and up.id != down.id
    page.reload()
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "true")
    ask(page, "endless", wait=False)
    expect(last(page).locator(".text")).to_contain_text("0 1")
    page.keyboard.press("Escape")
    expect(last(page).locator(".foot")).to_contain_text("stopped")
    expect(page.locator(".feedback")).to_have_count(2)  # not for the answer that was stopped
    page.evaluate("page.chat.turns[0].answers[0].start = 'another start of the server'")
    page.reload()
    expect(page.locator(".feedback")).to_have_count(1)


def test_a_corrected_answer_takes_the_place_of_the_first(open_chat, stored, endpoints):
    page = open_chat()
    ask(page, "Capital?")
    button(page, "Edit").click()
    box = page.get_by_role("textbox", name="Corrected answer")
    expect(box).to_be_focused()
    expect(box).to_have_value("Lyon.")
    expect(last(page).locator(".text")).to_be_hidden()
    button(page, "Save").click()
    expect(last(page).locator(".saved")).to_have_text("nothing has changed")
    box.fill("**Paris**")
    held = []
    page.route("**/feedback", lambda route: held.append(route))
    with page.expect_request("**/feedback"):
        button(page, "Save").click()
    page.keyboard.press("Escape")  # does nothing while the text is being saved
    expect(button(page, "Cancel")).to_be_disabled()
    expect(box).to_be_visible()
    held[0].continue_()
    page.unroute("**/feedback")
    saved(page)
    expect(box).to_have_count(0)
    expect(last(page).locator(".text strong")).to_have_text("Paris")
    expect(last(page).locator(".corrected")).to_have_text("corrected by you")
    (record,) = stored()
    assert (record.kind, record.answer, record.edited) == ("edit", "Lyon.", "**Paris**")
    ask(page, "Are you sure?")
    assert endpoints[0].messages() == ["Capital?", "**Paris**", "Are you sure?"]
    page.reload()
    first = page.locator(".answer").first
    expect(first.locator(".text strong")).to_have_text("Paris")
    first.get_by_role("button", name="Edit").click()
    box.fill("Lyon. ")
    box.press("Control+Enter")
    expect(first.locator(".saved")).to_have_text("saved")
    expect(first.locator(".corrected")).to_have_count(0)
    assert stored()[1].edited == "Lyon."  # the correction is taken back


OTHER_TAB = """() => {
  const chats = JSON.parse(localStorage.getItem(KEY));
  chats[0].turns[0].answers[0].feedback = { rating: "thumbs_down" };
  localStorage.setItem(KEY, JSON.stringify(chats));
  window.dispatchEvent(new StorageEvent("storage", { key: KEY }));
}"""


def test_feedback_of_another_tab_does_not_replace_an_open_text_box(open_chat, stored):
    page = open_chat()
    ask(page, "Capital?")
    button(page, "Edit").click()
    page.get_by_role("textbox", name="Corrected answer").fill("Paris.")
    page.evaluate(OTHER_TAB)
    button(page, "Save").click()
    expect(last(page).locator(".corrected")).to_be_visible()
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    page.evaluate(OTHER_TAB)  # which did not know the correction
    page.reload()
    expect(last(page).locator(".text")).to_have_text("Paris.")
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    assert [record.kind for record in stored()] == ["edit"]


@pytest.mark.slow
def test_two_tabs_keep_each_others_feedback(open_chat, stored):
    page = open_chat()
    ask(page, "Capital?")
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Capital?", exact=True).click()
    button(other, "Good answer").click()
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "true")
    button(page, "Edit").click()
    page.get_by_role("textbox", name="Corrected answer").fill("Paris.")
    button(other, "Bad answer").click()
    saved(other)
    button(page, "Save").click()
    expect(last(page).locator(".corrected")).to_be_visible()
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    expect(last(other).locator(".text")).to_have_text("Paris.")
    page.reload()
    expect(last(page).locator(".text")).to_have_text("Paris.")
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    assert [record.kind for record in stored()] == ["thumbs_up", "thumbs_down", "edit"]


def test_a_choice_between_two_answers(open_chat, stored):
    page = open_chat(side_by_side=True)
    ask(page, "Capital?")
    better = page.get_by_role("button", name="This one is better")
    expect(better).to_have_count(2)
    better.last.click()
    saved(page)
    expect(better.last).to_have_attribute("aria-pressed", "true")
    better.first.click()
    expect(better.first).to_have_attribute("aria-pressed", "true")
    expect(better.last).to_have_attribute("aria-pressed", "false")
    base, tuned = stored()
    assert (base.chosen, base.rejected, base.connection, base.against) == (
        *("Paris.", "Lyon."),
        *("phi3-base", "phi3"),
    )
    assert (tuned.chosen, tuned.rejected, tuned.connection) == ("Lyon.", "Paris.", "phi3")
    page.reload()
    expect(better.first).to_have_attribute("aria-pressed", "true")
    ask(page, "fail")  # an answer that failed has no buttons
    expect(page.get_by_role("alert")).to_have_count(2)
    expect(page.locator(".feedback")).to_have_count(2)


def test_it_works_from_the_keyboard(open_chat, stored):
    page = open_chat()
    ask(page, "Capital?")
    button(page, "Copy").focus()
    page.keyboard.press("Tab")
    expect(button(page, "Good answer")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Space")
    saved(page)
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(button(page, "Comment")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("too short")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Comment on the answer")).to_have_count(0)
    expect(button(page, "Comment")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("first line")
    page.keyboard.press("Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Control+Enter")
    saved(page)
    expect(button(page, "Comment")).to_be_focused()
    assert [(record.kind, record.comment) for record in stored()] == [
        ("thumbs_up", None),
        ("comment", "first line\nsecond line"),
    ]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ({"status": 507}, "the disk is full"),
        pytest.param(
            None,
            "The feedback was not saved: the server cannot be reached.",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failure_is_shown_and_nothing_is_lost(open_chat, stored, failure, message):
    sent = []

    def fail(route):
        sent.append(json.loads(route.request.post_data))
        if failure is None:
            return route.abort()
        body = json.dumps({"error": {"code": "SystemError", "message": message}})
        return route.fulfill(**failure, body=body, content_type="application/json")

    noise = "status of 507" if failure else "ERR_FAILED"
    page = open_chat(noise=noise)
    ask(page, "Capital?")
    page.route("**/feedback", fail)
    button(page, "Edit").click()
    page.get_by_label("Corrected answer").last.fill("Paris, of course.")
    button(page, "Save").click()
    expect(last(page).get_by_role("alert")).to_contain_text(message)
    expect(last(page).locator(".saved")).to_have_text("")
    expect(page.get_by_role("textbox", name="Corrected answer")).to_have_value("Paris, of course.")
    button(page, "Good answer").click()
    expect(last(page).get_by_role("alert")).to_have_count(1)
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "false")
    button(page, "Save").click()
    expect(last(page).get_by_role("alert")).to_contain_text(message)
    assert stored() == []
    button(page, "Try again").click()
    expect(last(page).get_by_role("alert")).to_contain_text(message)
    page.unroute("**/feedback")
    # The same text, sent again, is the same feedback, even if the first attempt has arrived.
    edits = [each["id"] for each in sent if each["kind"] == "edit"]
    assert len(edits) == 3 and len(set(edits)) == 1
    page.get_by_role("textbox", name="Corrected answer").fill("Paris.")  # not what failed
    button(page, "Try again").click()
    saved(page)
    expect(last(page).get_by_role("alert")).to_have_count(0)
    (record,) = stored()
    assert record.edited == "Paris." and record.id not in edits


def test_hostile_texts_do_nothing(open_chat, stored, endpoints):
    page = open_chat()
    endpoints[0].answers["hostile"] = HOSTILE[1]
    ask(page, "hostile")
    button(page, "Edit").click()
    page.get_by_role("textbox", name="Corrected answer").fill("".join(HOSTILE[:-2]) + "\ud83d")
    button(page, "Save").click()
    saved(page)
    button(page, "Comment").click()
    page.get_by_role("textbox", name="Comment on the answer").fill(HOSTILE[0])
    button(page, "Save").click()
    expect(page.get_by_label("Comment on the answer")).to_have_count(0)
    page.reload()
    expect(last(page).locator(".corrected")).to_be_visible()
    log = page.locator("#log")
    assert log.locator("script, iframe, img, base, meta, style, object, h1").count() == 0
    assert [record.kind for record in stored()] == ["edit", "comment"]
    assert stored()[1].comment == HOSTILE[0].strip()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_it_fits_every_screen_and_can_be_read(open_chat, scheme, width):
    page = open_chat(
        side_by_side=True, color_scheme=scheme, viewport={"width": width, "height": 760}
    )
    ask(page, "Capital?")
    page.get_by_role("button", name="This one is better").first.click()
    expect(page.locator(".saved").first).to_have_text("saved")
    button(page, "Edit").click()
    button(page, "Save").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= 760
