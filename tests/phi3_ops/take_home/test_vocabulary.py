"""Tokenizers as vocabularies of GGUF files."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home.vocabulary import (
    _O200K,
    _WORDS,
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    make_vocabulary,
)


class Backend:
    """A tokenizer with another description."""

    def __init__(self, document):
        self.backend_tokenizer = self
        self._text = json.dumps(document)

    def to_str(self):
        return self._text


def with_document(source, change):
    document = json.loads(source.tokenizer.backend_tokenizer.to_str())
    change(document)
    return replace(source, tokenizer=Backend(document))


def test_a_byte_level_tokenizer(tiny):
    vocabulary = make_vocabulary(tiny)
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", "smollm")
    assert len(vocabulary.tokens) == len(vocabulary.types) == tiny.config.vocab_size
    end = tiny.tokenizer.convert_tokens_to_ids("<|end|>")
    assert vocabulary.tokens[end] == "<|end|>" and vocabulary.types[end] == CONTROL
    assert vocabulary.types.count(NORMAL) == len(vocabulary.tokens) - 5
    assert vocabulary.scores == [] and all(" " in merge for merge in vocabulary.merges)
    assert not vocabulary.adds_space and not vocabulary.strips_right


def test_a_sentencepiece_tokenizer(longrope):
    vocabulary = make_vocabulary(longrope)
    assert (vocabulary.model, vocabulary.pre) == ("llama", "default")
    assert vocabulary.types.count(BYTE) == 256 and vocabulary.types.count(UNUSED) == 7
    assert vocabulary.tokens[-1].startswith("[PAD") and vocabulary.merges == []
    assert vocabulary.adds_space and vocabulary.strips_right
    document = json.loads(longrope.tokenizer.backend_tokenizer.to_str())
    first, last = (document["model"]["merges"][i] for i in (0, -1))
    ids = document["model"]["vocab"]
    assert vocabulary.scores[ids["".join(first)]] > vocabulary.scores[ids["".join(last)]]


def split_by(regex):
    return {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}},
            {"type": "ByteLevel", "use_regex": False},
        ],
    }


@pytest.mark.parametrize(
    ("pre", "ignore_merges", "name"),
    [
        (split_by(_WORDS % "{1,3}"), False, "dbrx"),
        (split_by(_WORDS % "{1,3}"), True, "llama-bpe"),
        (split_by(_WORDS % ""), False, "qwen2"),
        (split_by(_O200K), False, "gpt-4o"),
        ({"type": "ByteLevel"}, False, "gpt-2"),
    ],
)
def test_known_splits(tiny, pre, ignore_merges, name):
    def change(document):
        document["pre_tokenizer"] = pre
        document["model"]["ignore_merges"] = ignore_merges

    assert make_vocabulary(with_document(tiny, change)).pre == name


@pytest.mark.parametrize("pre", [None, split_by(r"\w"), {"type": "Whitespace"}])
def test_an_unknown_split(tiny, pre):
    source = with_document(tiny, lambda document: document.update(pre_tokenizer=pre))
    with pytest.raises(OpsError, match="splits a text in an unknown way. llama.cpp has no"):
        make_vocabulary(source)


def test_another_kind_of_tokenizer(tiny):
    source = with_document(tiny, lambda document: document["model"].update(type="Unigram"))
    with pytest.raises(OpsError, match="is a Unigram"):
        make_vocabulary(source)


def test_more_tokens_than_rows(tiny):
    source = with_document(tiny, lambda document: document["model"]["vocab"].update(extra=9999))
    with pytest.raises(OpsError, match="has more tokens than the model's"):
        make_vocabulary(source)


def test_other_rows_than_config_json_has(tiny):
    weights = SimpleNamespace(shape=lambda name: (20_000_000, 64))
    with pytest.raises(OpsError, match="an embedding of 20,000,000 rows"):
        make_vocabulary(replace(tiny, weights=weights))
