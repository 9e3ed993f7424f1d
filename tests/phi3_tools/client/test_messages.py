"""Messages, Phi-3's template, counting of tokens, and the context window."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from phi3_tools import (
    ConfigError,
    PromptTooLongError,
    Usage,
    fit,
)
from phi3_tools.client.messages import (
    ESTIMATE,
    LONGEST_TOKEN,
    check_messages,
    render,
    tokenizer_counter,
)

TEXTS = st.text(st.characters(exclude_categories=()))
CORPUS = [
    "Who founded Microsoft? Bill Gates and Paul Allen.",
    "Wie heißt die Hauptstadt von Österreich? Wien.",
    "def fit(messages):\n    return [m for m in messages]\n",
    "",
    "                                ",
] * 5


def chat_of(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


# -- messages --------------------------------------------------------------------------------------


def test_check_messages_drops_other_keys():
    message = {"role": "user", "content": "Hi", "name": "x", "id": 1}
    assert check_messages([message]) == chat_of(("user", "Hi"))


@pytest.mark.finding(
    24, "messages of a call have a wrong type", "`ConfigError` with the number of the message"
)
@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the list of messages is empty"),
        (None, "the question is NoneType, not a text or a list of messages"),
        (
            [{"role": "judge", "content": "x"}],
            "message 1: role is 'judge', not one of system, user",
        ),
        ([{"content": "x"}], "message 1: role is None"),
        (["Hi"], "message 1: role is None"),
        ([*chat_of(("user", "x")), {"role": "user"}], r"message 2 \(user\): content is NoneType"),
        ([{"role": "user", "content": ["x"]}], r"message 1 \(user\): content is list, not text"),
        ([{"role": ["user"], "content": "x"}], "message 1: role is"),
    ],
)
def test_wrong_messages_are_refused(messages, message):
    with pytest.raises(ConfigError, match=message):
        check_messages(messages)


def test_render_is_phi3s_template():
    chat = chat_of(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "ü\n"))
    assert render(chat) == (
        "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n"
        "<|user|>\nü\n<|end|>\n<|assistant|>\n"
    )


def test_usage():
    assert Usage(3, 4).as_dict() == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
    }


# -- counting --------------------------------------------------------------------------------------


@cache
def tokenizer(kind):
    """Return a small tokenizer: byte-level BPE like Phi-4's, or BPE with byte fallback like Phi-3's."""
    bytes_as_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    if kind == "byte-level":
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=alphabet, max_token_length=LONGEST_TOKEN
        )
        built.train_from_iterator(CORPUS, trainer)
        return built
    if kind == "unigram":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<unk>", *bytes_as_tokens]
        trainer = trainers.UnigramTrainer(
            vocab_size=400,
            unk_token="<unk>",
            special_tokens=special,
            max_piece_length=LONGEST_TOKEN,
        )
        trained.train_from_iterator(CORPUS, trainer)
        vocabulary = [tuple(item) for item in json.loads(trained.to_str())["model"]["vocab"]]
        if "▁" not in dict(vocabulary):
            vocabulary.append(("▁", -9.0))
        built = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    else:
        trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<unk>", *bytes_as_tokens],
            initial_alphabet=["▁"],
            max_token_length=LONGEST_TOKEN,
        )
        trained.train_from_iterator(CORPUS, trainer)
        built = trained
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return built


KINDS = ["byte-level", "unigram", "bpe"]
VALID = st.text(st.characters(exclude_categories=("Cs",))) | st.lists(
    st.sampled_from([" ", "Bill", " Gates", "Österreich", "🙂", "\n", "中文", "\0", "a", "."]),
    max_size=60,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@given(text=VALID)
@example("")
@example("   ")
@example("🙂" * 50)
@example("\u0f00\u1234ꙮ")
def test_the_estimate_holds_on_both_sides(kind, text):
    count = len(tokenizer(kind).encode(text, add_special_tokens=False).ids)
    assert ESTIMATE.least(text) <= count <= ESTIMATE.most(text)


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(VALID, min_size=1, max_size=4))
def test_the_estimate_of_a_prompt_is_an_upper_bound(kind, texts):
    """A tokenizer whose role markers are special tokens, as in Phi-3's vocabulary."""
    roles = ["user", "assistant"]
    chat = chat_of(*[(roles[n % 2], text) for n, text in enumerate(texts)])
    built = Tokenizer.from_str(tokenizer(kind).to_str())
    built.add_special_tokens(["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"])
    begin_of_sequence = 1
    count = len(built.encode(render(chat), add_special_tokens=False).ids) + begin_of_sequence
    assert ESTIMATE.most_of(chat) >= count


@given(TEXTS)
def test_any_text_can_be_counted(text):
    assert 0 <= ESTIMATE.least(text) <= ESTIMATE.most(text)


def test_the_lower_estimate_knows_the_longest_token():
    assert [ESTIMATE.least("x" * n) for n in (0, 1, 16, 17)] == [0, 1, 1, 2]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer("byte-level").save(str(path))
    return path


def test_a_tokenizer_file_counts_exactly(tokenizer_file):
    counter = tokenizer_counter(str(tokenizer_file))
    text = "Wie heißt die Hauptstadt?"
    expected = len(tokenizer("byte-level").encode(text).ids)
    assert counter.most(text) == counter.least(text) == expected < len(text)


@given(text=TEXTS)
@example(text="half \ud800 a pair")
@example(text="\ud83d\ude42")
def test_a_tokenizer_file_counts_any_text(tokenizer_file, text):
    assert tokenizer_counter(str(tokenizer_file)).most(text) >= bool(text)


def test_a_wrong_tokenizer_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the tokenizer file .*missing.json"):
        tokenizer_counter(str(tmp_path / "missing.json"))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read the tokenizer file .*bad.json"):
        tokenizer_counter(str(tmp_path / "bad.json"))


def test_the_package_for_a_tokenizer_file_may_be_missing(monkeypatch, tokenizer_file):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ConfigError, match="`tokenizers` is not installed.*pip install tokenizers"):
        tokenizer_counter(str(tokenizer_file))


# -- fitting ---------------------------------------------------------------------------------------

CHAT = chat_of(
    ("system", "sys"),
    ("user", "one"),
    ("assistant", "ONE"),
    ("user", "two"),
    ("assistant", "TWO"),
    ("user", "three"),
)


def cost(messages):
    return ESTIMATE.most_of(messages)


@pytest.mark.parametrize(
    ("room", "fitted"),
    [
        (cost(CHAT), CHAT),
        (cost(CHAT) - 1, [CHAT[0], *CHAT[3:]]),
        (cost([CHAT[0], *CHAT[3:]]), [CHAT[0], *CHAT[3:]]),
        (cost([CHAT[0], *CHAT[3:]]) - 1, [CHAT[0], CHAT[5]]),
        (cost([CHAT[0], CHAT[5]]), [CHAT[0], CHAT[5]]),
    ],
)
def test_fit_leaves_out_whole_turns_oldest_first(room, fitted):
    assert fit(CHAT, context_window=room + 100, max_new_tokens=100) == fitted


def test_system_messages_are_kept_at_any_position():
    chat = [CHAT[1], CHAT[2], chat_of(("system", "late"))[0], CHAT[5]]
    room = cost([chat[2], chat[3]])
    assert fit(chat, context_window=room, max_new_tokens=0) == [chat[2], chat[3]]


def test_a_question_too_long_is_an_error():
    question = chat_of(("user", "x" * 16 * 100))
    with pytest.raises(PromptTooLongError) as caught:
        fit(question, context_window=110, max_new_tokens=10)
    assert (
        "at least 109 tokens, but only 100 are free: the context window has 110, and 10 are kept"
        in str(caught.value)
    )
    assert caught.value.hint in str(caught.value)


def test_between_the_estimates_the_endpoint_decides():
    chat = chat_of(("user", "old"), ("assistant", "x"), ("user", "x" * 1000))
    assert fit(chat, context_window=500, max_new_tokens=0) == chat[2:]


def test_a_tokenizer_file_decides_exactly(tokenizer_file):
    counter = tokenizer_counter(str(tokenizer_file))
    question = chat_of(("user", "Who founded Microsoft? " * 40))
    room = counter.most_of(question)
    assert room < cost(question)
    assert fit(question, context_window=room, max_new_tokens=0, counter=counter) == question
    with pytest.raises(PromptTooLongError):
        fit(question, context_window=room - 1, max_new_tokens=0, counter=counter)


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=20)}
    ),
    min_size=1,
    max_size=12,
)


@given(MESSAGES, st.integers(1, 400))
def test_what_fit_keeps(chat, window):
    try:
        fitted = fit(chat, context_window=window, max_new_tokens=0)
    except PromptTooLongError:
        return
    system = [m for m in chat if m["role"] == "system"]
    others = [m for m in chat if m["role"] != "system"]
    tail = fitted[len(system) :]
    assert fitted[: len(system)] == system
    assert tail == others[len(others) - len(tail) :]
    asked = [n for n, m in enumerate(others) if m["role"] == "user"]
    assert len(tail) >= len(others) - (asked[-1] if asked else 0)
    # It is longer than the window only if no more turns could be left out.
    if cost(fitted) > window:
        assert not [m for m in tail[1:] if m["role"] == "user"]
    # Turns are left out completely, so the rest begins with a question.
    assert not tail or tail == others or tail[0]["role"] == "user"
