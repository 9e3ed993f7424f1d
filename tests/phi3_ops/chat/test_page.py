"""The chat page in a real browser: what a user sees and does, and what a hostile answer cannot do."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from browser import CHROMIUM
from chat_browser import ask, last
from contrast import CONTRAST
from hostile_answers import HOSTILE
from phi3_ops import paths
from phi3_ops.pf.connections import delete_connection, save_connection
from scripted_endpoint import HANG_S, scripted_endpoint
from served_flow import pf_serve, phi3_serve

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

ANSWER = """A flow is a **graph**, written in YAML:

1. *inputs*, such as `question`,
2. *nodes*, which call tools,
3. *outputs*.

```python
@tool
def ask(connection: CustomConnection, question: str) -> str:
    return client(connection).chat(question).text
```

| kind | has |
|---|---|
| chat | a history |
| evaluation | an aggregation |"""


@pytest.fixture(scope="module")
def endpoints():
    """The endpoints of the connections `phi3` and `phi3-base`."""
    with scripted_endpoint() as tuned, scripted_endpoint() as base:
        for name, endpoint in (("phi3", tuned), ("phi3-base", base)):
            save_connection(name, {"endpoint": endpoint.url, "max_attempts": "1"}, "a-key")
        yield tuned, base
        for name in ("phi3", "phi3-base"):
            delete_connection(name)


@pytest.fixture(scope="module")
def url(endpoints):
    with phi3_serve() as served:
        yield served.url


# -- a conversation ----------------------------------------------------------------------------------


def test_the_first_token_is_seen_before_the_last(look, url, endpoints):
    endpoints[0].held.add("first second")
    endpoints[0].release.clear()
    page = look(url)
    expect(page.locator("#about")).to_have_text(re.compile(r"flow chat \S+ · connection phi3"))
    ask(page, "first second", wait=False)
    expect(last(page).locator(".text")).to_have_text("first")
    expect(last(page)).to_have_attribute("aria-busy", "true")
    endpoints[0].release.set()
    expect(last(page).locator(".text")).to_have_text("first second")
    expect(last(page).locator(".foot")).to_have_text(
        re.compile(r"^Copytokens: 11 in, 2 out · .*\d m?s · first token after .*\d m?s$")
    )
    assert last(page).get_attribute("aria-busy") is None


def test_a_follow_up_has_the_history(look, url, endpoints):
    page = look(url)
    ask(page, "fail")
    for question in ("one", "two", "three"):
        ask(page, question)
    assert endpoints[0].messages() == ["one", "one", "two", "two", "three"]


def test_stop_ends_the_call_and_keeps_the_text_so_far(look, url, endpoints):
    endpoints[0].gone.clear()
    page = look(url)
    ask(page, "endless", wait=False)
    expect(last(page).locator(".text")).to_contain_text("0 1 2")
    page.get_by_role("button", name="Stop").click()
    expect(last(page).locator(".foot")).to_contain_text("stopped")
    assert endpoints[0].gone.wait(HANG_S)
    expect(last(page).locator(".text")).to_contain_text("0 1 2")
    ask(page, "and now?")
    assert endpoints[0].messages()[-1] == "and now?"


def test_escape_stops(look, url):
    page = look(url)
    ask(page, "endless", wait=False)
    expect(last(page).locator(".text")).to_contain_text("0 1")
    page.keyboard.press("Escape")
    expect(last(page).locator(".foot")).to_contain_text("stopped")


def test_a_reload_keeps_the_chat_and_a_chat_can_be_deleted(look, url, endpoints):
    page = look(url)
    ask(page, "keep this")
    page.reload()
    expect(last(page).locator(".text")).to_have_text("keep this")
    ask(page, "go on")
    assert endpoints[0].messages() == ["keep this", "keep this", "go on"]
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".answer")).to_have_count(0)
    ask(page, "another")
    assert endpoints[0].messages() == ["another"]
    page.get_by_role("button", name="keep this", exact=True).click()
    expect(page.locator(".question")).to_have_text(["keep this", "go on"])
    page.get_by_role("button", name="Delete the chat: keep this").click()
    expect(page.locator(".question")).to_have_count(0)
    page.reload()
    expect(page.locator("#chats li")).to_have_count(1)


def test_a_question_before_the_page_knows_its_connections_is_sent_later(look, url, endpoints):
    endpoints[0].answers["early"] = "never too early"
    page, held = look(url), []
    expect(
        page.get_by_text("connection phi3")
    ).to_be_visible()  # the first visit's request is not held
    page.route("**/page.json", lambda route: held.append(route))
    with page.expect_request("**/page.json"):
        page.reload()
    ask(page, "early", wait=False)
    expect(page.get_by_label("Your question")).to_have_value("early")
    held[0].continue_()
    expect(last(page).locator(".text")).to_have_text("never too early")
    expect(page.get_by_label("Your question")).to_have_value("")


def test_leaving_in_the_middle_keeps_the_text_so_far(look, url):
    page = look(url)
    ask(page, "endless", wait=False)
    expect(last(page).locator(".text")).to_contain_text("0 1 2")
    page.reload()
    expect(last(page).locator(".text")).to_contain_text("0 1 2")
    expect(last(page).locator(".foot")).to_contain_text("stopped")


# As Chromium does at some time while the page is left: it breaks off the requests.
CUT = """
const real = window.fetch;
const answer = () => new Response(new ReadableStream({ start(stream) {
  stream.enqueue(new TextEncoder().encode('data: {"answer": "0 1 2"}\\n\\n'));
  window.cut = () => stream.error(new TypeError("network error"));
} }), { headers: { "content-type": "text/event-stream" } });
window.fetch = async (path, options) => path.endsWith("score") ? answer() : real(path, options);
null;
"""


@pytest.mark.parametrize("leaving", [True, False])
def test_an_answer_that_breaks_off_while_the_page_is_left_is_not_an_error(look, url, leaving):
    page = look(url)
    page.evaluate(CUT)
    ask(page, "anything", wait=False)
    expect(last(page).locator(".text")).to_contain_text("0 1 2")
    if leaving:
        page.evaluate("window.dispatchEvent(new Event('beforeunload'))")
    page.evaluate("window.cut()")
    message = last(page).locator(".foot") if leaving else last(page).get_by_role("alert")
    expect(message).to_contain_text("stopped" if leaving else "cannot be reached")
    expect(last(page).get_by_role("alert")).to_have_count(0 if leaving else 1)


def test_errors_have_the_endpoints_message_and_advice(look, url):
    page = look(url)
    ask(page, "fail")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("told to fail. Check the generation parameters")
    page.reload()
    expect(alert).to_contain_text("told to fail")
    ask(page, "break")
    expect(last(page).locator(".text")).to_have_text("half an")
    expect(last(page).get_by_role("alert")).to_have_text(
        re.compile("The answer broke off: the stream broke off before its end. .+")
    )


@pytest.fixture
def narrow(endpoints):
    """The endpoint accepts one earlier turn with a question, and counts its requests from 0."""
    endpoints[0].most_messages = 3
    endpoints[0].requests.clear()
    yield endpoints[0]
    endpoints[0].most_messages = 1000


def test_older_turns_are_left_out_of_a_full_context(look, url, narrow):
    page = look(url)
    for number in range(1, 5):
        ask(page, f"question {number}")
        expect(last(page).locator(".text")).to_have_text(f"question {number}")
    assert narrow.messages() == ["question 3", "question 3", "question 4"]
    # The third question was sent twice. The fourth began where the third had ended.
    assert len(narrow.requests) == 6
    expect(page.get_by_role("alert")).to_have_count(0)
    left_out = "older turns left out: the model reads 512 tokens"
    expect(last(page).locator(".foot")).to_contain_text(left_out)


def test_a_full_context_is_said_in_one_sentence(look, url, narrow):
    page = look(url)
    narrow.most_messages = 1
    ask(page, "first")
    narrow.most_messages = 0
    ask(page, "second")
    sentence = "The conversation is longer than this model's 512 tokens. Start a new chat."
    expect(page.get_by_role("alert")).to_have_text(sentence)
    page.get_by_role("button", name="New chat").click()
    ask(page, "third")
    sentence = "The question is longer than this model's 512 tokens. Ask a shorter question."
    expect(page.get_by_role("alert")).to_have_text(sentence)


def test_the_empty_page_explains_itself_and_suggests_questions(look, url):
    page = look(url)
    empty = page.locator(".empty")
    expect(empty).to_contain_text("The model of phi3 answers.")
    expect(empty).to_contain_text("Your chats are stored in this browser only.")
    suggested = empty.get_by_role("button")
    expect(suggested).to_have_text(["Who founded Microsoft?", "What is 7 times 8?"])
    suggested.first.click()
    expect(page.locator("#log .question")).to_have_text(["Who founded Microsoft?"])
    expect(page.locator(".answer .from")).to_have_text(["phi3"])
    expect(page.locator(".empty")).to_have_count(0)


def test_an_empty_answer_is_explained(look, url, endpoints):
    endpoints[0].answers["nothing"] = ""
    page = look(url)
    ask(page, "nothing")
    expect(page.get_by_role("alert")).to_contain_text("ended its answer before the first word")


def test_a_server_that_is_gone_is_an_error(look, url):
    page = look(url, noise="ERR_FAILED")
    page.route("**/score", lambda route: route.abort())
    ask(page, "anyone?")
    expect(page.get_by_role("alert")).to_contain_text("Is `phi3 serve` still running?")


def test_markdown_is_shown_and_copied(look, url, endpoints):
    endpoints[0].answers["show"] = ANSWER
    page = look(url, permissions=["clipboard-read", "clipboard-write"])
    ask(page, "show")
    text = last(page).locator(".text")
    expect(text.locator("ol li")).to_have_count(3)
    expect(text.locator("pre code")).to_contain_text(
        "def ask(connection: CustomConnection, question: str) -> str:"
    )
    expect(text.locator("table td")).to_have_count(4)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == ANSWER


# -- hostile answers ---------------------------------------------------------------------------------


def test_hostile_answers_do_nothing(look, url, endpoints):
    hostile = [
        *HOSTILE[:-2],
        "![x](https://example.invalid/pixel.png)",
        "[x](javascript:alert(1)) [y](data:text/html,<script>alert(1)</script>)",
        "<javascript:alert(1)> [ref]: javascript:alert(1)",
        "```html\n<img src=x onerror=alert(1)>\n```",
    ]
    page = look(url)
    for number, text in enumerate(hostile):
        endpoints[0].answers[f"hostile {number}"] = text
        ask(page, f"hostile {number}")
    ask(page, HOSTILE[1])
    page.reload()
    expect(page.locator(".answer")).to_have_count(len(hostile) + 1)
    page.mouse.move(400, 300)
    page.wait_for_timeout(300)
    log = page.locator("#log")
    assert log.locator("script, iframe, img, svg, base, meta, style, form, object, h1").count() == 0
    links = log.locator("a").evaluate_all("links => links.map((link) => link.href)")
    assert [link for link in links if not link.startswith("https://")] == []
    assert page.url == f"{url}/"
    expect(log).to_contain_text("<img src=x onerror=alert('image')>")


def test_the_policy_is_a_second_barrier(look, url):
    """If the rendering let HTML through, it could neither run a script nor reach another host."""
    page = look(url, noise="Content Security Policy")
    refused = page.evaluate("""async () => {
      const refused = [];
      document.addEventListener("securitypolicyviolation", (e) => refused.push(e.effectiveDirective));
      document.body.append(Object.assign(new Image(), { src: "https://example.invalid/x.png" }));
      document.body.append(Object.assign(document.createElement("script"), { text: "window.bad = 1" }));
      await fetch("https://example.invalid/").catch(() => 0);
      await new Promise((done) => setTimeout(done, 100));
      return [...new Set(refused), window.bad];
    }""")
    assert sorted(map(str, refused)) == ["None", "connect-src", "img-src", "script-src-elem"]


# -- side by side ------------------------------------------------------------------------------------


def test_two_connections_side_by_side(look, endpoints):
    tuned, base = endpoints
    who = "Who founded Microsoft?"
    tuned.answers[who] = "Bill Gates and Paul Allen founded Microsoft in **1975**."
    base.answers[who] = "Microsoft is a company. It was founded by people who founded it."
    with phi3_serve("--against", "phi3-base") as served:
        page = look(served.url)
        expect(page.locator("#about")).to_contain_text("connections phi3 and phi3-base")
        both = "Two models answer side by side: phi3 and phi3-base (not fine-tuned)."
        expect(page.locator(".empty")).to_contain_text(both)
        ask(page, who)
        expect(page.locator(".answer .from")).to_have_text(["phi3", "phi3-base not fine-tuned"])
        expect(page.locator(".answer .text")).to_contain_text(["Bill Gates and", "a company"])
        ask(page, "fail")
        expect(page.get_by_role("alert")).to_have_count(2)
        ask(page, "more")
        assert tuned.messages() == [who, tuned.answers[who], "more"]
        assert base.messages() == [who, base.answers[who], "more"]
        page.get_by_label("side by side").uncheck()
        page.get_by_label("Connection to ask").select_option("phi3-base")
        asked = len(tuned.requests)
        ask(page, "only you")
        assert base.messages()[-1] == "only you"
        assert len(tuned.requests) == asked


# -- for everybody -----------------------------------------------------------------------------------


def test_it_works_from_the_keyboard(look, url):
    page = look(url)
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_text("line one\nline two")
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")
    expect(page.get_by_role("log")).to_contain_text("line two")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(
        page.get_by_role("button", name="Copied").or_(page.get_by_text("Copying is not allowed"))
    ).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_every_screen_and_can_be_read(look, url, endpoints, scheme, width):
    endpoints[0].answers["What is a flow?"] = ANSWER
    page = look(url, color_scheme=scheme, viewport={"width": width, "height": 760})
    ask(page, "x" * 300)
    ask(page, "fail")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    if width == 390:
        menu = page.get_by_role("button", name="Earlier chats", exact=True)
        menu.click()
        page.get_by_role("button", name="New chat").click()
    else:
        page.get_by_role("button", name="New chat").click()
    ask(page, "What is a flow?")
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= 760


# -- promptflow's own page ---------------------------------------------------------------------------


def test_the_stock_page_answers_on_the_engine_that_has_it(look, endpoints):
    with pf_serve(paths.FLOWS / "chat", "--engine", "fastapi") as served:
        # The page requests fonts from this host, and works without them.
        page = look(served.url, noise="", unreachable="static2.sharepointonline.com")
        page.wait_for_load_state("networkidle")  # the page reads the flow's inputs first
        box = page.get_by_role("textbox").last
        box.fill("hello stock")
        box.press("Enter")
        expect(page.get_by_text("hello stock")).to_have_count(2)
    assert endpoints[0].messages() == ["hello stock"]
