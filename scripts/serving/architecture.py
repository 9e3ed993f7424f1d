"""The sizes of a Phi-3, as an export stores them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

ARCHITECTURE = "architecture.json"  # file of an export
WEIGHTS = "weights"  # folder of an export
EMBEDDINGS = "model.embed_tokens"
HEAD = "lm_head"  # the output matrix, which models do not have if they use the embeddings instead


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Phi-3.

    Attributes:
        layers: number of layers.
        heads: number of query heads.
        key_value_heads: number of key and value heads.
        head_size: size of a head.
        intermediate_size: size of the feed-forward part.
        epsilon: number that an RMS norm adds to the mean of the squares.
        sliding_window: number of tokens that a token attends to; 0 for all tokens.
        vocabulary_size: number of tokens that the model knows.
        rotation_scale: factor of the cosines and sines of the rotary embedding.
        frequencies: rotary frequencies. The number of values that are rotated is twice their number.
        long_frequencies: rotary frequencies of rows that are longer than the short window; empty
            for models without a short window.
    """

    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate_size: int
    epsilon: float
    sliding_window: int
    vocabulary_size: int
    rotation_scale: float
    frequencies: list[float]
    long_frequencies: list[float]

    @property
    def projections(self) -> list[int]:
        """The number of values of a token's queries, of its keys and of its values."""
        key_values = self.key_value_heads * self.head_size
        return [self.heads * self.head_size, key_values, key_values]

    @classmethod
    def read(cls, folder: Path) -> Architecture:
        """Read the architecture of an export."""
        return cls(**json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Write the architecture to an export."""
        (folder / ARCHITECTURE).write_text(json.dumps(asdict(self)), encoding="utf-8")
