"""Find a quote in a passage, although white space, case and the form of quotation marks may differ."""

from __future__ import annotations

import unicodedata

from ..data import comparable_text

MIN_WORDS = 3  # of a quote: a shorter one is in almost any passage
_SAME = {"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'}
_SAME |= {"–": "-", "—": "-", "‑": "-", "−": "-", "\u00ad": ""}  # the last: soft hyphen


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """Return the begin and the end of a quote in a text, or None if the text does not contain it."""
    wanted, _ = _folded(quote.strip(" \n\t\"'“”«»…."))
    folded, positions = _folded(text)
    if not wanted:
        return None
    begin = folded.find(wanted)
    if begin < 0:
        return None
    return positions[begin], positions[begin + len(wanted) - 1] + 1


def is_long_enough(quote: str, text: str) -> bool:
    """Return whether a quote has enough words to support something."""
    words = comparable_text(quote).count(" ") + 1
    return words >= min(MIN_WORDS, comparable_text(text).count(" ") + 1)


def _folded(text: str) -> tuple[str, list[int]]:
    """Return a text in the form in which it is compared, and the position of each character in it."""
    characters: list[str] = []
    positions: list[int] = []
    for position, character in enumerate(text):
        if character.isspace():
            if characters and characters[-1] == " ":
                continue
            folded = " "
        else:
            plain = _SAME.get(character, character)
            folded = unicodedata.normalize("NFKC", plain).casefold()
        characters.extend(folded)
        positions.extend([position] * len(folded))
    return "".join(characters), positions
