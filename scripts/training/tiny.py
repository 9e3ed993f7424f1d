"""Make a tiny Phi-3 with random weights, to fine-tune without a GPU and without a download.

It has the real architecture (`Phi3ForCausalLM`), special tokens and chat template, only smaller:
everything that works with it works the same way with a real Phi-3. After training it knows the
training file and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Phi3ForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|end|>"
# Phi-3's special tokens, in the order of their ids in Phi-3-mini's tokenizer.
SPECIAL_TOKENS = [END_OF_TEXT, "<|assistant|>", "<|system|>", END_OF_TURN, "<|user|>"]


def make_tokenizer(texts: Iterable[str], vocab_size: int, window: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Phi-3's special tokens and chat template.

    Any text can be encoded and decoded without loss: unknown words become bytes.

    Args:
        texts: texts to learn the merges from: those of the training file, never of the test file.
        vocab_size: maximum number of tokens, including the special tokens and the 256 bytes.
        window: length of the longest sequence that the model accepts, in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import phi3_chat_template

    tokenizer = Tokenizer(models.BPE())
    # Each digit is a token, so that the model can read numbers that it has not seen.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        # Equal to TRL's template, for which TRL has a version that marks the assistant's tokens.
        chat_template=phi3_chat_template,
        model_max_length=window,
        # For generation, the ends of the prompts must be aligned. Training has its own padding.
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> Phi3ForCausalLM:
    """Make a Phi-3 with random weights. The same torch seed gives the same weights.

    Args:
        tokenizer: tokenizer that gives the size of the vocabulary and the ids of the special tokens.
        shape: settings of `Phi3Config`, such as hidden_size and num_hidden_layers.

    Raises:
        TypeError, ValueError, StrictDataclassError: the settings do not describe a valid Phi-3.
    """
    from transformers import Phi3Config, Phi3ForCausalLM

    end_of_text = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        # As with Phi-3-mini-4k, positions are not rescaled for inputs longer than the window.
        original_max_position_embeddings=shape["max_position_embeddings"],
        **shape,
    )
    return Phi3ForCausalLM(config)
