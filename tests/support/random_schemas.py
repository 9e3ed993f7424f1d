"""JSON schemas of all keywords that the endpoint honours, and answers made by chance."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "name", "größe", 'with "quotes"', "x y", "日本"])
STRINGS = st.sampled_from(["", "Paris", 'a "b"', "c\\d", "e\nf", "ü🙂", "1", "null"])


def _number(kind):
    whole = st.integers(-50, 50)
    limits = st.tuples(whole, st.integers(0, 60)).map(
        lambda pair: {"type": kind, "minimum": pair[0], "maximum": pair[0] + pair[1]}
    )
    above = whole.map(lambda low: {"type": kind, "exclusiveMinimum": low})
    return st.one_of(st.just({"type": kind}), limits, above)


def _string():
    lengths = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": sum(pair)}
    )
    patterns = st.sampled_from(
        ["^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "ab+c", "^(x|yy|zzz)*$", "^.{3}$"]
    )
    formats = st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "email"])
    return st.one_of(
        lengths,
        patterns.map(lambda text: {"type": "string", "pattern": text}),
        formats.map(lambda text: {"type": "string", "format": text}),
    )


def _values():
    scalar = st.one_of(STRINGS, st.integers(-9, 9), st.booleans(), st.none())
    return st.one_of(
        st.lists(scalar, min_size=1, max_size=4).map(lambda values: {"enum": values}),
        scalar.map(lambda value: {"const": value}),
    )


def _array(items):
    return st.tuples(items, st.integers(0, 2), st.integers(0, 2)).map(
        lambda parts: {
            "type": "array",
            "items": parts[0],
            "minItems": parts[1],
            "maxItems": parts[1] + parts[2],
        }
    )


@st.composite
def _object(draw, values):
    properties = draw(st.dictionaries(NAMES, values, max_size=4))
    required = (
        draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    )
    schema = {"type": "object", "properties": properties, "required": required}
    others = draw(st.sampled_from([False, {"type": "integer"}, None]))
    return schema if others is None else {**schema, "additionalProperties": others}


def _combined(schemas):
    return st.lists(schemas, min_size=1, max_size=3).map(lambda items: {"anyOf": items})


schemas = st.recursive(
    st.one_of(
        _number("integer"),
        _number("number"),
        _string(),
        _values(),
        st.just({"type": ["boolean", "null"]}),
    ),
    lambda inner: st.one_of(_array(inner), _object(inner), _combined(inner)),
    max_leaves=6,
)


def random_tokens(constraint, end_tokens, seed, limit):
    """Return tokens that a random model would choose, and whether its answer is complete.

    It prefers to end: an answer of chance hardly ever closes what it has opened.
    """
    chance, state, tokens = np.random.default_rng(seed), constraint.start(), []
    while len(tokens) < limit:
        allowed = np.flatnonzero(state.allowed())
        assert not state.failed
        if end_tokens & set(allowed.tolist()):
            return tokens, True
        short = allowed[: max(8, len(allowed) // 20)]
        tokens.append(int(chance.choice(short if chance.random() < 0.7 else allowed)))
        state.add(tokens[-1])
        assert not state.failed
        if state.ended:
            return tokens, True
    return tokens, False
