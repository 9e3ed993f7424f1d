"""The transformers backend: loading a tokenizer, end tokens, LongRoPE's window, and the cache."""

import runpy
from pathlib import Path

import pytest
from engine_transformers import find_end_tokens

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"


class Vocabulary:
    """As much of a tokenizer as the search for end tokens uses."""

    def __init__(self, eos_token=None, **ids):
        self.eos_token = eos_token
        self._ids = ids

    def get_vocab(self):
        return self._ids


PHI3 = {"<|end|>": 7, "<|endoftext|>": 0, "hello": 3}


@pytest.mark.parametrize(
    ("tokenizer", "configured", "expected"),
    [
        (Vocabulary("<|endoftext|>", **PHI3), None, [0, 7]),
        (Vocabulary("<|endoftext|>", **PHI3), 0, [0, 7]),
        (Vocabulary("<|endoftext|>", **PHI3), [7, 0], [7, 0]),
        (Vocabulary("<|end|>", **PHI3), [1, 0], [1, 0, 7]),
        (Vocabulary("</s>", **{"</s>": 2}), 5, [5, 2]),
        (Vocabulary(), None, []),
    ],
)
def test_training_and_serving_agree_on_the_end_tokens(tokenizer, configured, expected):
    """The two folders are uploaded alone, so each has a copy of the function."""
    outputs = runpy.run_path(str(TRAINING / "outputs.py"))
    assert find_end_tokens(tokenizer, configured) == expected
    assert outputs["find_end_tokens"](tokenizer, configured) == expected
