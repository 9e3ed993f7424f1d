"""A tiny random Phi-3: the real architecture and Phi-3's specials, about 600 k parameters.

It has learned nothing, but it tokenizes, batches, streams and stops like a Phi-3, offline, in a second.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
WINDOW = 512
CORPUS = (
    "Who founded Microsoft? Bill Gates and Paul Allen founded Microsoft in 1975.",
    "What is the capital of France? The capital of France is Paris.",
    "You are a helpful assistant. Answer in one short sentence.",
    "Wie heißt die Hauptstadt von Österreich? Sie heißt Wien.",
    "日本の首都はどこですか。東京です。",
    "Какая столица России? Москва.",
    "Emoji take four bytes each: 🙂 🚀 👩‍💻 🎉.",
)
# TRL's phi3.jinja, word for word: training swaps in its own version where they are equal.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% elif message['role'] == 'user' %}{{'<|user|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n"
    "' + message['content'] + '<|end|>\n"
    "'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n"
    "' }}{% else %}{{ eos_token }}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny-phi3")


def build_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write a model folder as `save_pretrained` does; the same seed gives the same weights."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    tokenizer = _tokenizer()
    end = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=WINDOW,
        original_max_position_embeddings=WINDOW,
        # Larger than usual, because with 0.02 a random model repeats its last token forever.
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(config)
    torch.random.set_rng_state(state)
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=WINDOW,
    )
