"""The HTML report as text: it is well formed, complete and contains nothing active."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from hostile_answers import HOSTILE, hostile_report
from phi3_ops.comparison.page import format_signed
from phi3_ops.comparison.page_text import LONGEST
from phi3_ops.comparison.report import render_report
from phi3_ops.terminal import escape_invisible

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text; every tag must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return hostile_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(report):
    return Page(render_report(report))


def test_nothing_of_the_page_is_active(page):
    assert not {"script", "iframe", "object", "embed", "link", "a", "img", "form"} & set(page.tags)
    names = {name for _, name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"style", "href", "src", "srcset", "action"}


def test_a_policy_allows_this_style_and_nothing_else(report, page):
    import base64
    import hashlib

    (policy,) = [v for _, name, v in page.attributes if name == "content" and "default-src" in v]
    style = re.search("<style>(.*)</style>", render_report(report), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy


def test_every_answer_can_be_read(page):
    text = "".join(page.text)
    for answer in HOSTILE:
        assert escape_invisible(answer)[:LONGEST] in text, answer[:40]
    assert "told to fail <b>loudly</b>" in text


def test_every_part_of_the_comparison_is_on_the_page(report, page):
    text = "".join(page.text)
    for entry in report.comparisons:
        low, high = format_signed(entry.result.low), format_signed(entry.result.high)
        assert f"{low} to {high}" in text
    for name in ("Gate: ", "Scores", "Runs", "Differences line by line", "Slices", "Lines"):
        assert name in text
    assert "answer.connection" in text and "phi3-base" in text


def test_tables_are_labelled(page):
    assert page.tags.count("th") == len(
        [1 for tag, name, _ in page.attributes if (tag, name) == ("th", "scope")]
    )
    pictures = [
        value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"
    ]
    assert len(pictures) == page.tags.count("svg") and all(pictures)


def test_lost_lines_come_first_and_the_rest_is_counted(report):
    text = render_report(report, rows=3)
    rows = re.findall(r'<tr class="([^"]*)"><th scope="row" class="line-number">(\d+)', text)
    assert len(rows) == 3
    assert all("loss0" in classes.split() for classes, _ in rows)
    assert f"3 of {report.data.lines} lines: lost lines first" in text


def test_the_same_report_makes_the_same_page(report):
    assert render_report(report) == render_report(report)


def test_several_comparisons_come_with_a_warning(page):
    assert "about 1 in 20 comparisons looks significant by chance" in "".join(page.text)


def test_answers_and_errors_are_read_once_per_run(tmp_path, monkeypatch):
    """A run computes them for all lines at each access: once per shown line would be quadratic."""
    from phi3_ops.runs.scored import ScoredRun

    comparison = hostile_report(tmp_path)
    accesses = []
    for name in ("answers", "errors"):
        getter = getattr(ScoredRun, name).fget
        counted = property(lambda run, name=name, get=getter: (accesses.append(name), get(run))[1])
        monkeypatch.setattr(ScoredRun, name, counted)
    render_report(comparison)
    assert sorted(accesses) == ["answers", "answers", "errors", "errors"]
