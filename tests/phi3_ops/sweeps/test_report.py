"""The HTML report of a sweep: complete, well formed, and nothing in it is active."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from browser import CHROMIUM
from contrast import CONTRAST
from phi3_ops.sweeps.report import render_sweep
from sweep_results import FAILED, PRICE, sweep_result

HOSTILE = '<script>alert(1)</script>"{{7*7}}\u202e'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    columns = [0.0] * 20, [1.0] * 20, [FAILED, *[0.5] * 19]
    fields = {"connections": ["c"], "prices": {"c": PRICE}}
    folder = tmp_path_factory.mktemp("sweep")
    return render_sweep(sweep_result(folder, *columns, names=["plain"], currency=HOSTILE, **fields))


def test_it_is_well_formed_and_complete(page):
    body = re.sub(r"<!doctype html>|<meta[^>]*>|<style>.*?</style>|<br>", "", page, flags=re.DOTALL)
    root = ElementTree.fromstring(body)
    assert len(root.findall(".//svg")) == 2
    assert len(root.findall(".//svg//circle")) == 6
    text = "".join(root.itertext())
    assert "Winner: B has the highest score" in text
    assert "run-C-eval" in text and "corrected for 2 comparisons" in text
    assert [row.get("class") for row in root.findall(".//tr")].count("winner") == 1


def test_nothing_is_active(page):
    assert "<script" not in page and "49" not in re.findall(r"cost, (.*?)<", page)[0]
    assert "\u202e" not in page
    assert " style=" not in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_it_can_be_read_in_a_browser(page, chromium, tmp_path):
    file = tmp_path / "sweep.html"
    file.write_text(page, encoding="utf-8")
    messages = []
    for scheme, width in (("light", 1200), ("dark", 1200), ("light", 360)):
        context = chromium.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        tab = context.new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("request", lambda r: r.url == file.as_uri() or messages.append(r.url))
        tab.goto(file.as_uri())
        assert tab.evaluate(CONTRAST) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        context.close()
    assert messages == []
