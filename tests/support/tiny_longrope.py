"""A tiny random Phi-3.5: LongRoPE, a SentencePiece tokenizer, special tokens that drop spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_model import CHAT_TEMPLATE, CORPUS

SPECIALS = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
ORIGINAL_WINDOW, WINDOW = 256, 1024
LONG_FACTOR, SHORT_FACTOR = 4.0, 1.1


def build_tiny_longrope(folder: Path, seed: int = 0) -> Path:
    """Write the model as `save_pretrained` does, in bfloat16, without tied embeddings."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    tokenizer = _tokenizer()
    head_width, rotated = 16, 12
    end = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    config = Phi3Config(
        vocab_size=len(tokenizer) + 7,  # some rows have no token
        hidden_size=4 * head_width,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        original_max_position_embeddings=ORIGINAL_WINDOW,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": rotated / head_width,
            "long_factor": [LONG_FACTOR + i / 8 for i in range(rotated // 2)],
            "short_factor": [SHORT_FACTOR + i / 8 for i in range(rotated // 2)],
            "original_max_position_embeddings": ORIGINAL_WINDOW,
        },
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=end[0],
        pad_token_id=end[1],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Phi3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end[1])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    import json

    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = _normalizer(normalizers)
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [name for name in sorted(model["vocab"], key=model["vocab"].get) if name != "<unk>"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = _normalizer(normalizers)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # As in Phi-3.5: all but the first drop the spaces that follow them.
    tokenizer.add_special_tokens(
        [AddedToken(name, rstrip=i > 0, normalized=False) for i, name in enumerate(SPECIALS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE.replace("{% else %}{{ eos_token }}", ""),
        model_max_length=WINDOW,
    )


def _normalizer(normalizers: Any) -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
