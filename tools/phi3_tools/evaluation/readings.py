"""Parsing of a judge's answer into a score or a winner. It never raises.

Small judges put their JSON into fences and prose, forget quotes, and repeat parts of the prompt. The
parser looks for JSON objects with the key, labelled lines (`Score: 4`), and a text that is only the
value. If two such statements differ, or one is not on the scale, the answer has no value. This also
rejects an answer in which the judge repeats a score that the judged answer gives itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rubrics import BEST, WORST

LONGEST = 20_000  # characters; a longer answer is not parsed
_FENCE = re.compile(r"```[a-z]*", re.IGNORECASE)
_DECORATION = " \t\r\n*_\"'`>#.()[]"
# The start of an object that is not valid JSON. It is not clear what a score in it refers to.
_BROKEN_OBJECT = re.compile(r"""\{\s*\\?["']""")


@dataclass(frozen=True)
class Scale:
    """The values that a judge may give, and how to find them.

    Attributes:
        key: key of the value in a JSON object.
        labels: regular expression of the words in front of a labelled value.
        value: regular expression of a value; its first group is the value itself.
        other_value: regular expression of anything that could be another value in the rest of a line.
        retry_request: message to a judge whose answer could not be parsed.
    """

    key: str
    labels: str
    value: str
    other_value: re.Pattern[str]
    retry_request: str

    def parse(self, value: object) -> str | None:
        """Return a JSON value as a value of this scale, in lower case, or None if it is not one."""
        text = _as_text(value).strip(_DECORATION)
        match = re.fullmatch(self.value, text, re.IGNORECASE)
        return match[1].lower() if match else None


SCORE = Scale(
    key="score",
    labels="score|rating|grade",
    value=rf"([{WORST}-{BEST}])(?:\.0+)?(?:\s*(?:/|out of)\s*{BEST})?",
    other_value=re.compile(r"-?[0-9]"),
    retry_request='Reply with only {"score": n}, where n is a whole number from '
    f"{WORST} to {BEST}. No other word.",
)
WINNER = Scale(
    key="winner",
    labels="winner|better|verdict",
    value=r"(?:answer\s+)?(A|B|tie)",
    other_value=re.compile(r"\b(?:A|B|[Tt]ie)\b"),
    retry_request='Reply with only {"winner": "A"}, {"winner": "B"} or {"winner": "tie"}. No other word.',
)


@dataclass(frozen=True)
class Reading:
    """A parsed answer: the value in lower case, or None, and the reason, if the judge gave one."""

    value: str | None
    reason: str | None = None


def read_verdict(text: str, scale: Scale) -> Reading:
    """Parse a judge's answer.

    Args:
        text: the answer; any text.
        scale: the values that the judge may give, `SCORE` or `WINNER`.
    """
    if len(text) > LONGEST:
        return Reading(None)
    pairs, rest = _take_objects(_FENCE.sub(" ", text))
    reason = next((v for k, v in pairs if k.lower() == "reason" and isinstance(v, str)), None)
    values = {scale.parse(v) for k, v in pairs if k.strip().lower() == scale.key}
    near_json = _near_json(scale)
    values.update(scale.parse(value) for value in near_json.findall(rest))
    rest = near_json.sub(" ", rest)
    values.update(_labelled_values(rest, scale))
    bare_value = scale.parse(rest)
    if bare_value or not values:
        values.add(bare_value)
    if len(values) > 1 or _BROKEN_OBJECT.search(rest):
        return Reading(None, reason)
    return Reading(values.pop(), reason)


def _as_text(value: object) -> str:
    """Return a JSON string or number as text, and other values as the empty text."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    return ""


def _take_objects(text: str) -> tuple[list[tuple[str, Any]], str]:
    """Return the pairs of all JSON objects in a text, also nested ones, and the text without them."""
    pairs: list[tuple[str, Any]] = []
    rest: list[str] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        object_pairs: list[tuple[str, Any]] = []
        # Pairs and not a dict, so that a key that occurs twice gives two values.
        decoder = json.JSONDecoder(object_pairs_hook=object_pairs.extend, strict=False)
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
            rest.append(text[position:end])
        else:
            pairs += object_pairs
            rest.append(text[position:start])
        position = end
    return pairs, " ".join([*rest, text[position:]])


def _near_json(scale: Scale) -> re.Pattern[str]:
    """Return a pattern for `{score: 4}` and `{'score': 4}`, which are not valid JSON."""
    return re.compile(rf"""\{{\s*['"]?{scale.key}['"]?\s*[:=]\s*([^{{}}\n]*)\}}""", re.IGNORECASE)


def _labelled_values(text: str, scale: Scale) -> Iterator[str | None]:
    """Yield the values of lines such as `**Score:** 4/5`; None for a value that is not on the scale."""
    decoration = r"""[ \t*_"'`>#.()-]*"""
    label = re.compile(
        rf"^{decoration}(?:(?:my|the|overall|final|total) )*(?:{scale.labels})\b{decoration}"
        rf"(?:{WORST} ?(?:-|–|to) ?{BEST}{decoration})?(?::|=|\bis\b)[\s*_\"'`(\[]*(.*)$",
        re.IGNORECASE | re.MULTILINE,
    )
    for line in label.finditer(text):
        statement = line[1]
        match = re.match(rf"{scale.value}(?![\w/%+–-])", statement, re.IGNORECASE)
        if match and not scale.other_value.search(statement, match.end()):
            yield match[1].lower()
        elif scale.other_value.match(statement):
            yield None


# -- probabilities ---------------------------------------------------------------------------------


def weighted_score(raw: Any, score: int) -> float | None:
    """Return the expected score over the probabilities of the token that states the score.

    These are the probabilities of the scale's digits at the last such token, scaled to the sum 1.
    Source: "G-Eval: NLG Evaluation using GPT-4 with Better Human Alignment". The format is that of
    OpenAI's "Chat completions" reference, `choices[0].logprobs.content`.

    Args:
        raw: the endpoint's answer, as parsed JSON.
        score: the score that was parsed from the answer's text.

    Returns:
        A score between `WORST` and `BEST`; None if the answer has no probabilities of the score.
    """
    tokens = _tokens(raw)
    index = _score_index(score, [_text(token) for token in tokens])
    if index is None:
        return None
    weights = dict.fromkeys(range(WORST, BEST + 1), 0.0)
    alternatives = tokens[index].get("top_logprobs")
    for alternative in alternatives if isinstance(alternatives, list) else []:
        digit, logprob = _bare(_text(alternative)), _field(alternative, "logprob")
        if digit in _DIGITS and _is_logprob(logprob):
            weights[int(digit)] += math.exp(logprob)
    total = math.fsum(weights.values())
    # Without the score's own token, the list belongs to another token.
    if not weights[score] or not total:
        return None
    return math.fsum(value * weight for value, weight in weights.items()) / total


_DIGITS = {str(score) for score in range(WORST, BEST + 1)}
_LABEL_BEFORE = re.compile(
    r"""(?:score|rating|grade)[\s"'*_`]*(?:[:=]|\bis\b)[\s"'*_`(\[]*$""", re.IGNORECASE
)


def _tokens(raw: Any) -> Sequence[Mapping[str, Any]]:
    choices = _field(raw, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    content = _field(_field(first, "logprobs"), "content")
    return [t for t in content if isinstance(t, dict)] if isinstance(content, list) else []


def _score_index(score: int, tokens: Sequence[str]) -> int | None:
    """Return the index of the last token that is the score and follows a label, or begins the text."""
    text_before, index = "", None
    for number, token in enumerate(tokens):
        if _bare(token) == str(score):
            is_stated = not text_before.strip(_DECORATION) or _LABEL_BEFORE.search(text_before)
            index = number if is_stated else index
        text_before += token.replace("▁", " ")
    return index


def _bare(token: str) -> str:
    return token.replace("▁", " ").strip()


def _text(token: Any) -> str:
    text = _field(token, "token")
    return text if isinstance(text, str) else ""


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _is_logprob(value: Any) -> bool:
    # Values slightly above 0 come from rounding.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and not math.isnan(value) and value <= 1e-3
