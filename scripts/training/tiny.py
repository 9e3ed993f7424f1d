"""A tiny, random Phi-3 to fine-tune where there is neither a GPU nor a model to download.

It is the real architecture (`Phi3ForCausalLM`), the real special tokens and the real chat
template, only small: everything that works with it works the same way with a real Phi-3.
What it knows after training is the training file and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Phi3ForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|end|>"
# Phi-3's own, in the order of their ids in Phi-3-mini's tokenizer.
SPECIAL_TOKENS = [END_OF_TEXT, "<|assistant|>", "<|system|>", END_OF_TURN, "<|user|>"]


def make_tokenizer(texts: Iterable[str], vocab_size: int, window: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Phi-3's special tokens and chat template.

    Any text survives a round trip, since what is not in the vocabulary falls back to bytes.

    Args:
        texts: what to learn the merges from: the training file's texts, never the test file's.
        vocab_size: tokens at most, special tokens and the 256 bytes included.
        window: the longest sequence that the model takes, in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import phi3_chat_template

    tokenizer = Tokenizer(models.BPE())
    # Digits stay apart, so that no number in a question is one opaque token.
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
        # Exactly TRL's: only then does it know where the assistant's tokens are.
        chat_template=phi3_chat_template,
        model_max_length=window,
        # Generation wants the prompts' ends aligned; training pads by itself.
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> Phi3ForCausalLM:
    """Make a Phi-3 with random weights. Seed torch first to get the same weights again.

    Args:
        tokenizer: sets the size of the vocabulary and the ids of the special tokens.
        shape: settings of `Phi3Config`, such as hidden_size and num_hidden_layers.

    Raises:
        TypeError, ValueError: settings that make no Phi-3.
    """
    from transformers import Phi3Config, Phi3ForCausalLM

    end_of_text = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = Phi3Config(
        vocab_size=len(tokenizer),
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        # Longer inputs than the window get no rescaled positions, as with Phi-3-mini-4k.
        original_max_position_embeddings=shape["max_position_embeddings"],
        **shape,
    )
    return Phi3ForCausalLM(config)
