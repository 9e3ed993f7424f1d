"""Removal of a secret from texts of the network, in every encoding in which a peer may repeat it.

A peer may repeat the key in an error message, a dump of headers, a request id or the name of a JSON key.
It may have encoded the key for a URL, JSON, HTML or base64, and may have cut it off. Therefore every part
of `MIN_PART` characters is removed, not only the complete key. Texts are shortened afterwards.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

MARK = "…"  # replaces a secret
MIN_PART = (
    8  # a part of a secret with this many characters is removed; shorter secrets only as a word
)
# Words that error messages contain. They are not removed, even if somebody uses one of them as a key.
_COMMON_WORDS = frozenset(
    ["expired", "invalid", "key", "missing", "none", "secret", "test", "token", "wrong"]
)
_ROUNDS = (
    4  # encodings inside each other that are decoded, for example JSON inside JSON inside a URL
)
_ESCAPE = re.compile(
    r"%[0-9a-f]{2}|\\+u[0-9a-f]{4}|\\+x[0-9a-f]{2}|\\+|&#[0-9]{1,4};|&#x[0-9a-f]{1,4};"
    r"|&(?:amp|lt|gt|quot|apos);|\0",
    re.IGNORECASE,
)

Span = tuple[int, int]


@lru_cache(maxsize=64)
def redactor(secret: str) -> Redactor:
    """Return the redactor of a secret; the most recent ones are kept."""
    return Redactor(secret)


class Redactor:
    """Replaces a secret in texts.

    Args:
        secret: an endpoint key or an Entra token; an empty one is not searched for.
    """

    def __init__(self, secret: str) -> None:
        forms = {secret, *_unescaped_forms(secret)}
        forms |= {form for text in tuple(forms) for form in _encoded_forms(text)}
        self._complete = {form for form in forms if len(form) >= MIN_PART}
        self._parts = {part for form in forms for part in _windows(form)}
        self._word = re.compile(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])") if secret else None
        if len(secret) >= MIN_PART or secret.lower() in _COMMON_WORDS:
            self._word = None

    def __repr__(self) -> str:
        return "Redactor(…)"

    def redact(self, text: str) -> str:
        """Return the text with a mark for the secret, for its parts and for their encoded forms."""
        return self._replaced(text, self._spans(text))

    def redact_complete(self, text: str) -> str:
        """Return the text with a mark for the complete secret and for its encoded forms.

        For texts that people write: a password may contain an ordinary word of eight letters.
        """
        return self._replaced(text, self._complete_spans(text))

    def _replaced(self, text: str, spans: Iterable[Span]) -> str:
        if self._word:
            return self._word.sub(MARK, text)
        pieces, end = [], 0
        for start, stop in _merged(spans):
            pieces += [text[end:start], MARK]
            end = stop
        return "".join([*pieces, text[end:]])

    def _spans(self, text: str) -> Iterator[Span]:
        """Yield the parts of the text that repeat the secret, in the text itself and decoded."""
        for decoded, offsets in _decodings(text):
            for start in range(len(decoded) - MIN_PART + 1):
                if decoded[start : start + MIN_PART] in self._parts:
                    yield offsets[start], offsets[start + MIN_PART]

    def _complete_spans(self, text: str) -> Iterator[Span]:
        """Yield the parts of the text that are the complete secret, in the text itself and decoded."""
        for decoded, offsets in _decodings(text):
            for form in self._complete:
                start = decoded.find(form)
                while start >= 0:
                    yield offsets[start], offsets[start + len(form)]
                    start = decoded.find(form, start + 1)


def _decodings(text: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the text and its decoded forms, each with the original positions of its characters."""
    decoded, offsets = text, list(range(len(text) + 1))
    for _ in range(_ROUNDS):
        yield decoded, offsets
        unescaped, offsets = _unescape(decoded, offsets)
        if unescaped == decoded:
            return
        decoded = unescaped


def _windows(text: str) -> Iterator[str]:
    return (text[n : n + MIN_PART] for n in range(len(text) - MIN_PART + 1))


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield overlapping and adjacent spans as one, in order."""
    last: Span | None = None
    for start, stop in sorted(spans):
        if last and start <= last[1]:
            last = (last[0], max(last[1], stop))
            continue
        if last:
            yield last
        last = (start, stop)
    if last:
        yield last


def _unescape(text: str, offsets: list[int]) -> tuple[str, list[int]]:
    """Decode escapes of URLs, JSON and HTML once.

    Args:
        text: a text.
        offsets: position of each of its characters, and of its end, in the original text.

    Returns:
        The decoded text and its offsets.
    """
    characters: list[str] = []
    new_offsets: list[int] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        characters.append(text[end : match.start()])
        new_offsets += offsets[end : match.start()]
        character = _character(match.group())
        characters.append(character)
        new_offsets += [offsets[match.start()]] * len(character)
        end = match.end()
    return "".join([*characters, text[end:]]), new_offsets + offsets[end:]


def _character(escape: str) -> str:
    """Return what an escape stands for; a lone backslash or a null character stands for nothing."""
    if escape[0] == "&":
        return html.unescape(escape)
    digits = escape.lstrip("\\%uUxX")
    return chr(int(digits, 16)) if digits and escape != "\0" else ""


def _unescaped_forms(text: str) -> Iterator[str]:
    for _ in range(_ROUNDS):
        text, _offsets = _unescape(text, list(range(len(text) + 1)))
        yield text


def _encoded_forms(text: str) -> Iterator[str]:
    """Yield the text as hexadecimal digits, and as base64 at each of the three possible positions.

    The first and the last characters of base64 depend on the characters around the text. They are left
    out.
    """
    data = text.encode()
    yield data.hex()
    yield data.hex().upper()
    for shift, depends_on_previous in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        depends_on_next = 1 if (shift + len(data)) % 3 else 0
        core = encoded[depends_on_previous : len(encoded) - depends_on_next]
        yield core
        yield core.replace("+", "-").replace("/", "_")
