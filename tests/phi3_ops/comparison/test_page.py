"""Reports are rendered from templates: text is escaped, and the style is allowed by its hash."""

from __future__ import annotations

import base64
import hashlib

from phi3_ops.comparison.page import format_number, format_p_value, format_signed, render_page


def test_a_page_escapes_text_and_allows_its_own_style_only(tmp_path):
    (tmp_path / "page.html").write_text("{{ style_hash }}|{{ css|safe }}|{{ name|visible }}")
    text = render_page("page.html", css=".x{}", folder=tmp_path, name="<b>\u202e")
    style_hash, style, name = text.split("|")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert style_hash == f"sha256-{digest}" and style.endswith(".x{}")
    assert name.startswith("&lt;b&gt;") and "\u202e" not in name


def test_numbers():
    assert [format_number(v) for v in (None, 0, 0.123456, -2, 100)] == [
        "–",
        "0",
        "0.1235",
        "−2",
        "100",
    ]
    assert [format_signed(v) for v in (None, 0.0, 0.5, -0.25)] == ["–", "0", "+0.5", "−0.25"]
    assert [format_p_value(v) for v in (1, 0.0312, 0.0001)] == ["1.000", "0.031", "< 0.001"]
