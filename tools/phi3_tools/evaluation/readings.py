"""What a judge's words say: a score or a winner, or nothing that can be told. Never an exception.

Small judges wrap their JSON in fences and prose, forget quotes, and repeat what they were shown. What is
read from any text: JSON objects that hold the key, labelled lines (`Score: 4`), and a text that is just
the value. Every such statement counts: two that differ, or one that is not on the scale, and nothing can
be told. That also stops a judge that repeats the score which an answer under test gives itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rubrics import BEST, WORST

LONGEST = 20_000  # characters of an answer that are looked at; a longer one says nothing
_FENCE = re.compile(r"```[a-z]*", re.IGNORECASE)
_DECORATION = " \t\r\n*_\"'`>#.()[]"
# What is left of an object that is no JSON. Whose score stands in it, cannot be told.
_BROKEN = re.compile(r"""\{\s*\\?["']""")


@dataclass(frozen=True)
class Scale:
    """What a judge may say.

    Attributes:
        key: of the JSON object.
        labels: words in front of a labelled value, as a regular expression.
        value: what a value looks like, as a regular expression with the value as its group.
        other: finds a value where only prose should stand.
        again: what a judge is told whose answer could not be read.
    """

    key: str
    labels: str
    value: str
    other: re.Pattern[str]
    again: str

    def on_scale(self, said: object) -> str | None:
        """The value in what a JSON object says, or None."""
        text = _plain(said).strip(_DECORATION)
        found = re.fullmatch(self.value, text, re.IGNORECASE)
        return found[1].lower() if found else None


SCORE = Scale(
    key="score",
    labels="score|rating|grade",
    value=rf"([{WORST}-{BEST}])(?:\.0+)?(?:\s*(?:/|out of)\s*{BEST})?",
    other=re.compile(r"-?[0-9]"),
    again='Reply with only {"score": n}, where n is a whole number from '
    f"{WORST} to {BEST}. No other word.",
)
WINNER = Scale(
    key="winner",
    labels="winner|better|verdict",
    value=r"(?:answer\s+)?(A|B|tie)",
    other=re.compile(r"\b(?:A|B|[Tt]ie)\b"),
    again='Reply with only {"winner": "A"}, {"winner": "B"} or {"winner": "tie"}. No other word.',
)


@dataclass(frozen=True)
class Reading:
    """What an answer says: the value in lower case, or None; and the reason, where one is given."""

    value: str | None
    reason: str | None = None


def read_verdict(text: str, scale: Scale) -> Reading:
    """What a judge's answer says.

    Args:
        text: anything.
        scale: what it may say.
    """
    if len(text) > LONGEST:
        return Reading(None)
    pairs, rest = _take_objects(_FENCE.sub(" ", text))
    reason = next((v for k, v in pairs if k.lower() == "reason" and isinstance(v, str)), None)
    said = {scale.on_scale(v) for k, v in pairs if k.strip().lower() == scale.key}
    near_json = _near_json(scale)
    said.update(scale.on_scale(value) for value in near_json.findall(rest))
    rest = near_json.sub(" ", rest)
    said.update(_labelled(rest, scale))
    bare = scale.on_scale(rest)
    if bare or not said:
        said.add(bare)
    if len(said) > 1 or _BROKEN.search(rest):
        return Reading(None, reason)
    return Reading(said.pop(), reason)


def _plain(said: object) -> str:
    """A JSON value as the text of it; what is no text or number gives none."""
    if isinstance(said, (str, int, float)) and not isinstance(said, bool):
        return str(said)
    return ""


def _take_objects(text: str) -> tuple[list[tuple[str, Any]], str]:
    """The pairs of all JSON objects in a text, nested ones too, and the text without the objects."""
    pairs: list[tuple[str, Any]] = []
    rest: list[str] = []
    place = 0
    while (start := text.find("{", place)) >= 0:
        found: list[tuple[str, Any]] = []
        # Takes pairs and not a dict, so that a key given twice is two statements.
        decoder = json.JSONDecoder(object_pairs_hook=found.extend, strict=False)
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
            rest.append(text[place:end])
        else:
            pairs += found
            rest.append(text[place:start])
        place = end
    return pairs, " ".join([*rest, text[place:]])


def _near_json(scale: Scale) -> re.Pattern[str]:
    """`{score: 4}` and `{'score': 4}`, which are no JSON."""
    return re.compile(rf"""\{{\s*['"]?{scale.key}['"]?\s*[:=]\s*([^{{}}\n]*)\}}""", re.IGNORECASE)


def _labelled(text: str, scale: Scale) -> Iterator[str | None]:
    """What lines such as `**Score:** 4/5` say; None for a value that is not on the scale."""
    soft = r"""[ \t*_"'`>#.()-]*"""
    label = re.compile(
        rf"^{soft}(?:(?:my|the|overall|final|total) )*(?:{scale.labels})\b{soft}"
        rf"(?:{WORST} ?(?:-|–|to) ?{BEST}{soft})?(?::|=|\bis\b)[\s*_\"'`(\[]*(.*)$",
        re.IGNORECASE | re.MULTILINE,
    )
    for line in label.finditer(text):
        said = line[1]
        found = re.match(rf"{scale.value}(?![\w/%+–-])", said, re.IGNORECASE)
        if found and not scale.other.search(said, found.end()):
            yield found[1].lower()
        elif scale.other.match(said):
            yield None


# -- probabilities ---------------------------------------------------------------------------------


def weighted_score(raw: Any, score: int) -> float | None:
    """The expected score over the tokens that the judge weighed where it gave its score.

    The probabilities of the scale's digits at the last token that states the score, made to add up to 1.
    Source: "G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment". The form is that of OpenAI's
    "Chat completions" reference, `choices[0].logprobs.content`.

    Args:
        raw: the endpoint's whole answer.
        score: what was read from its text.

    Returns:
        A score between `WORST` and `BEST`; None where the endpoint tells no probabilities of it.
    """
    tokens = _tokens(raw)
    place = _place_of(score, [_text(token) for token in tokens])
    if place is None:
        return None
    weights = dict.fromkeys(range(WORST, BEST + 1), 0.0)
    tops = tokens[place].get("top_logprobs")
    for option in tops if isinstance(tops, list) else []:
        digit, logprob = _bare(_text(option)), _field(option, "logprob")
        if digit in _DIGITS and _is_logprob(logprob):
            weights[int(digit)] += math.exp(logprob)
    total = math.fsum(weights.values())
    # Without the token that was given, the list is of something else.
    if not weights[score] or not total:
        return None
    return math.fsum(value * weight for value, weight in weights.items()) / total


_DIGITS = {str(score) for score in range(WORST, BEST + 1)}
_STATES = re.compile(
    r"""(?:score|rating|grade)[\s"'*_`]*(?:[:=]|\bis\b)[\s"'*_`(\[]*$""", re.IGNORECASE
)


def _tokens(raw: Any) -> Sequence[Mapping[str, Any]]:
    choices = _field(raw, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    content = _field(_field(first, "logprobs"), "content")
    return [t for t in content if isinstance(t, dict)] if isinstance(content, list) else []


def _place_of(score: int, tokens: Sequence[str]) -> int | None:
    """The last token that is the score and stands where a score is stated."""
    before, place = "", None
    for number, token in enumerate(tokens):
        if _bare(token) == str(score):
            stated = not before.strip(_DECORATION) or _STATES.search(before)
            place = number if stated else place
        before += token.replace("▁", " ")
    return place


def _bare(token: str) -> str:
    return token.replace("▁", " ").strip()


def _text(token: Any) -> str:
    text = _field(token, "token")
    return text if isinstance(text, str) else ""


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _is_logprob(value: Any) -> bool:
    # A hair above 0 is rounding.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and not math.isnan(value) and value <= 1e-3
