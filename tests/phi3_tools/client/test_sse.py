"""Server-sent events, in any division into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_tools.client.sse import events, lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: a\n\ndata: b\n\n", ["a", "b"]),
        ("data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        ("data: a\r\rdata: b\r\r", ["a", "b"]),
        ("data:a\n\n", ["a"]),
        ("data:  a \n\n", [" a "]),
        ("data: a\ndata: b\n\n", ["a\nb"]),
        ("data: a\ndata:\ndata: b\n\n", ["a\n\nb"]),
        ("data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
        (": a comment\n\n: another\ndata: a\n\n", ["a"]),
        ("event: error\nid: 7\nretry: 10\ndata: a\n\n", ["a"]),
        ("\n\n\ndata: a\n\n\n\n", ["a"]),
        ("data: 🙂 ü\n\n", ["🙂 ü"]),
        ("data: a: b\n\n", ["a: b"]),
        ("data: a\u2028b\x0bc\x85d\n\n", ["a\u2028b\x0bc\x85d"]),
        ("database: a\n\n", []),
        ("data: [DONE]\n", ["[DONE]"]),
        ("data: a\n\ndata: cut of", ["a"]),
        ("data: a\ndata: cut of", ["a"]),
        ("", []),
    ],
)
def test_events(text, expected):
    assert list(events([text.encode()])) == expected
    assert list(events([bytes([byte]) for byte in text.encode()])) == expected


def test_broken_utf8_is_replaced():
    assert list(events([b"data: a\xffb\n\n"])) == ["a\ufffdb"]


def cut(data, positions):
    positions = sorted({min(position, len(data)) for position in positions})
    return [data[a:b] for a, b in zip([0, *positions], [*positions, len(data)])]


PIECES = st.sampled_from(
    ["data: ", "data:", ":", "\n", "\r", "\r\n", "\n\n", "🙂", "ü", "a", "id: 1"]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 120), max_size=20))
def test_any_chunking_gives_the_same_events(pieces, positions):
    data = "".join(pieces).encode()
    assert list(events(cut(data, positions))) == list(events([data]))


@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), min_size=1),
        max_size=5,
    ),
    st.sampled_from(["\n", "\r", "\r\n"]),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_every_sent_event_is_parsed(texts, end, positions):
    data = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    assert list(events(cut(data, positions))) == texts


def test_an_event_is_yielded_as_soon_as_it_is_complete():
    """The parser does not wait for the next chunk, which may arrive much later."""
    for end in (b"\n\n", b"\r\r", b"\r\n\r\n"):

        def chunks(end=end):
            yield b"data: a" + end
            raise AssertionError("asked for more before giving the event")

        assert next(events(chunks())) == "a"


def test_a_long_line_is_not_read_again_with_each_chunk():
    """Otherwise this test would take minutes."""
    chunks = [b"data: ", *[b"x" * 64] * 200_000, b"\n\n"]
    assert [len(line) for line in lines(chunks)] == [12_800_006, 0]
