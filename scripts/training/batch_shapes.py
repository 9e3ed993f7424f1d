"""The sizes of the batches that a training has, from the tokens of its rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batches import Example, SharedSequences
from inputs import Recipe, Row
from recipe_checks import DPO
from row_counts import IGNORED_LABEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHARACTERS_PER_TOKEN = 3.5  # of English text; used if the tokenizer cannot be read
MESSAGE_TOKENS = 5  # of a chat template, for each message
SHUFFLES = 4  # epochs whose batches are looked at


@dataclass(frozen=True)
class BatchShape:
    """The size of a batch.

    Attributes:
        sequences: number of sequences.
        length: tokens of each, with the padding.
        scored: number of tokens that are trained on, whose logits are computed.
        has_mask: whether the attention takes a mask for each pair of tokens.
    """

    sequences: int
    length: int
    scored: int
    has_mask: bool

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, with the padding."""
        return self.sequences * self.length


@dataclass(frozen=True)
class Batches:
    """The batches of a file.

    Attributes:
        heaviest: the batch that needs the most memory.
        mean_tokens: mean number of tokens of a batch, with the padding.
        count: number of batches in one pass over the file.
    """

    heaviest: BatchShape
    mean_tokens: float
    count: int


def tokenize(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase | None, template: str
) -> list[list[Example]]:
    """Return the tokens of each row's sequences: one of a conversation, two of a preference.

    Args:
        rows: conversations or preferences.
        tokenizer: the model's tokenizer, or None to guess the number of tokens.
        template: chat template that marks the tokens to train on.
    """
    return [
        [_tokens(messages, tokenizer, template) for messages in _conversations(row)] for row in rows
    ]


def _conversations(row: Row) -> list[list[dict[str, Any]]]:
    if "messages" in row:
        return [row["messages"]]
    return [[*row["prompt"], *row[side]] for side in ("chosen", "rejected")]


def _tokens(
    messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase | None, template: str
) -> Example:
    if tokenizer is not None:
        from templates import mask_tokens

        marked = mask_tokens(tokenizer, {"messages": messages}, template)
    else:
        marked = []
        for message in messages:
            count = math.ceil(len(message["content"]) / CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS
            marked += [(0, message["role"] == "assistant")] * count
    return {
        "input_ids": [token for token, _ in marked],
        "labels": [token if is_trained else IGNORED_LABEL for token, is_trained in marked],
    }


def train_batches(
    rows: Sequence[list[Example]], recipe: Recipe, config: Any, needs_mask: bool
) -> Batches:
    """Return the batches of the training file.

    Args:
        rows: tokens of each row's sequences.
        recipe: recipe of the run.
        config: TRL's settings of the run.
        needs_mask: whether packed sequences need a mask, as all attention but FlashAttention does.
    """
    size = config.per_device_train_batch_size
    if getattr(config, "packing", False):
        return _packed_batches(rows, size, config.max_length, needs_mask)
    order = random.Random(recipe.seed)
    epochs = [order.sample(rows, len(rows)) for _ in range(SHUFFLES)]
    return _plain_batches(epochs, size, recipe, config)


def eval_batches(
    rows: Sequence[list[Example]], recipe: Recipe, config: Any, needs_mask: bool
) -> Batches:
    """Return the batches of the evaluation file; see `train_batches`."""
    size = config.per_device_eval_batch_size
    packing = getattr(config, "eval_packing", None)
    if getattr(config, "packing", False) if packing is None else packing:
        return _packed_batches(rows, size, config.max_length, needs_mask)
    return _plain_batches([list(rows)], size, recipe, config)


def _packed_batches(
    rows: Sequence[list[Example]], size: int, max_length: int, needs_mask: bool
) -> Batches:
    """Return batches of full sequences, which TRL joins to one long sequence."""
    lengths = [min(len(row[0]["input_ids"]), max_length) for row in rows]
    scored = [
        sum(label != IGNORED_LABEL for label in row[0]["labels"][:max_length]) for row in rows
    ]
    sequences = math.ceil(sum(lengths) / max_length)
    tokens = min(size, sequences) * max_length
    shape = BatchShape(1, tokens, round(tokens * sum(scored) / sum(lengths)), needs_mask)
    return Batches(shape, float(tokens), math.ceil(sequences / size))


def _plain_batches(
    epochs: Sequence[list[list[Example]]], size: int, recipe: Recipe, config: Any
) -> Batches:
    shapes = [shape for rows in epochs for shape in _shapes(rows, size, recipe, config)]
    # Activations grow with the tokens. Logits have about as many bytes for a token as a few layers.
    heaviest = max(shapes, key=lambda shape: (shape.tokens + 2 * shape.scored, shape.scored))
    mean = sum(shape.tokens for shape in shapes) / len(shapes)
    return Batches(heaviest, mean, len(shapes) // len(epochs))


def _shapes(
    rows: Sequence[list[Example]], size: int, recipe: Recipe, config: Any
) -> Iterator[BatchShape]:
    for start in range(0, len(rows), size):
        examples = [_cut(example, config) for row in rows[start : start + size] for example in row]
        scored = sum(
            label != IGNORED_LABEL for example in examples for label in example["labels"][1:]
        )
        if recipe.rows_per_sequence > 1 and recipe.method != DPO:
            batch = SharedSequences(recipe.rows_per_sequence, 0)(examples)["input_ids"]
            yield BatchShape(batch.shape[0], batch.shape[1], scored, has_mask=True)
            continue
        lengths = [len(example["input_ids"]) for example in examples]
        multiple = config.pad_to_multiple_of or 1
        length = math.ceil(max(lengths) / multiple) * multiple
        yield BatchShape(len(lengths), length, scored, has_mask=min(lengths) < length)


def _cut(example: Example, config: Any) -> Example:
    return {name: values[: config.max_length] for name, values in example.items()}
