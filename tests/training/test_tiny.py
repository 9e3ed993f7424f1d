"""The tiny base: Phi-3's architecture, special tokens and template, and lossless encoding."""

import random
import string

import pytest
from inputs import read_recipe
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [message["content"] for row in ROWS for message in row["messages"]]


@pytest.fixture(scope="module")
def tokenizer():
    import tiny

    return tiny.make_tokenizer(TEXTS, vocab_size=400, window=64)


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "Ünïcödé, 日本の首都, Москва, שלום",
        "🙂👩‍💻 and a\ttab,\n\na blank line",
        "in 1975: 3.14 % of 1,000,000",
    ],
)
def test_text_is_encoded_and_decoded_without_loss(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_each_digit_is_a_token(tokenizer):
    assert len(tokenizer.encode("1975")) == 4


def test_each_special_token_is_one_token_and_padding_is_the_end_of_text(tokenizer):
    import tiny

    for token in tiny.SPECIAL_TOKENS:
        assert len(tokenizer.encode(token)) == 1
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_the_template_is_phi3s(tokenizer):
    text = tokenizer.apply_chat_template(
        ROWS[0]["messages"][:1], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"


def test_the_model_of_the_recipe_has_half_a_million_to_a_million_parameters():
    import tiny

    shape = dict(read_recipe(TINY_RECIPE).tiny)
    generator = random.Random(0)
    words = ("".join(generator.choices(string.ascii_letters, k=9)) for _ in range(3000))
    window = shape["max_position_embeddings"]
    tokenizer = tiny.make_tokenizer(words, shape.pop("vocab_size"), window)
    assert 500_000 < tiny.make_model(tokenizer, shape).num_parameters() < 1_000_000


def test_the_same_seed_gives_the_same_model(tokenizer):
    import tiny
    import torch

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 16, "max_position_embeddings": 64}
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(tiny.make_model(tokenizer, shape).lm_head.weight)
    assert torch.equal(*weights)
