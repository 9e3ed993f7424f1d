"""Batches without wasted computation: several rows per sequence, and logits of the answers only.

With the recipe's `rows_per_sequence`, the rows of a batch share a few sequences. Nothing is padded but
the shorter sequences' ends. The beginning that all rows have in common, such as the system message, is
computed once per sequence. Each row sees this beginning and itself, so its loss is that of the row alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from inputs import TrainError
from row_counts import IGNORED_LABEL
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

Example = dict[str, list[int]]


class SharedSequences:
    """A collator that puts several rows into one sequence.

    Args:
        rows_per_sequence: average number of rows in a sequence.
        pad_token_id: token for the ends of the shorter sequences.
    """

    def __init__(self, rows_per_sequence: int, pad_token_id: int) -> None:
        self._rows_per_sequence = rows_per_sequence
        self._pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return a batch of sequences.

        Args:
            examples: rows with `input_ids` and `labels`.

        Returns:
            `input_ids`, `labels`, `position_ids`, `attention_mask` (1 for each token that is not padding)
            and `segment_ids`, each of shape (sequences, length). A segment id is the number of a token's
            row in its sequence, or 0 for the shared beginning.
        """
        start = shared_start(examples)
        groups = distribute(examples, -(-len(examples) // self._rows_per_sequence))
        sequences = [_join(group, start) for group in groups]
        length = max(len(sequence["input_ids"]) for sequence in sequences)
        padding = {"input_ids": self._pad_token_id, "labels": IGNORED_LABEL}
        return {
            name: torch.tensor(
                [
                    sequence[name] + [padding.get(name, 0)] * (length - len(sequence[name]))
                    for sequence in sequences
                ]
            )
            for name in sequences[0]
        }


def shared_start(examples: Sequence[Example]) -> int:
    """Return the number of tokens that all rows begin with, and of which none is trained on.

    The token after them is not trained on either, because only one of the rows could predict it.
    """
    common = os.path.commonprefix([example["input_ids"] for example in examples])
    first_trained = min(
        next(
            (i for i, label in enumerate(example["labels"]) if label != IGNORED_LABEL), len(common)
        )
        for example in examples
    )
    return max(0, min(len(common), first_trained - 1))


def distribute(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """Return the rows in `count` groups of about the same number of tokens."""
    groups: list[list[Example]] = [[] for _ in range(count)]
    lengths = [0] * count
    for example in sorted(examples, key=lambda example: -len(example["input_ids"])):
        shortest = lengths.index(min(lengths))
        groups[shortest].append(example)
        lengths[shortest] += len(example["input_ids"])
    return groups


def _join(examples: Sequence[Example], start: int) -> dict[str, list[int]]:
    """Return one sequence of these rows, which share their first `start` tokens."""
    tokens = examples[0]["input_ids"][:start]
    labels, positions, segments = [IGNORED_LABEL] * start, list(range(start)), [0] * start
    for segment, example in enumerate(examples, 1):
        rest = example["input_ids"][start:]
        tokens = tokens + rest
        # The first token of a row would be predicted from the last one of another row.
        labels += [IGNORED_LABEL, *example["labels"][start + 1 :]]
        positions += range(start, start + len(rest))
        segments += [segment] * len(rest)
    return {
        "input_ids": tokens,
        "labels": labels,
        "position_ids": positions,
        "segment_ids": segments,
        "attention_mask": [1] * len(tokens),
    }


def visible_tokens(segment_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return which tokens each token sees: the shared beginning, and its own row up to itself.

    Args:
        segment_ids: numbers of the rows, of shape (sequences, length).
        attention_mask: 1 for each token that is not padding, of the same shape.

    Returns:
        Boolean mask of shape (sequences, 1, length, length), as transformers' models take it.
    """
    length = segment_ids.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    own_row = segment_ids[:, :, None] == segment_ids[:, None, :]
    seen = (own_row | (segment_ids[:, None, :] == 0)) & attention_mask[:, None, :].bool()
    # A token of the padding sees itself: softmax over nothing would not be a number.
    itself = torch.eye(length, dtype=torch.bool, device=segment_ids.device)
    return ((seen & earlier) | itself)[:, None]


def accept_shared_sequences(model: PreTrainedModel, max_length: int | None) -> None:
    """Make a model's forward accept `segment_ids`.

    Args:
        model: model to change.
        max_length: maximum number of tokens of a row, or None.

    Raises:
        TrainError: a row may be longer than the model's sliding window, which the mask leaves out.
    """
    window = getattr(model.config, "sliding_window", None)
    if window and (max_length is None or max_length > window):
        problem = (
            f"`rows_per_sequence` needs rows within the model's sliding window of {window} tokens"
        )
        raise TrainError(problem, "trainer.max_length", f"set it to at most {window}")
    original_forward = model.forward

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(
        self: PreTrainedModel, *args: Any, segment_ids: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        if segment_ids is not None:
            kwargs["attention_mask"] = visible_tokens(segment_ids, kwargs["attention_mask"])
        return original_forward(*args, **kwargs)

    model.forward = MethodType(forward, model)


def score_answers_only(model: PreTrainedModel, mean_logits: bool = False) -> None:
    """Make TRL's fused head skip the tokens that are not trained on, also on a CPU.

    TRL does so on GPUs. On a CPU it computes the logits of all tokens, and a second time in the backward
    pass: a third of a small model's time, since its vocabulary is as large as that of a large one.

    Args:
        model: model that TRL's `add_fused_lm_head` has changed.
        mean_logits: whether the mean of all logits is computed as well, which DPOTrainer logs.
    """
    original_forward = model.forward

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(
        self: PreTrainedModel,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            kwargs |= {"labels": labels} if labels is not None else {}
            return original_forward(*args, fused_lm_head=fused_lm_head, **kwargs)
        hidden_states = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        return score(self.get_output_embeddings(), hidden_states, labels, mean_logits)

    model.forward = MethodType(forward, model)


def score(
    head: torch.nn.Module,
    hidden_states: torch.Tensor,
    labels: torch.Tensor,
    mean_logits: bool = False,
) -> FusedCausalLMOutput:
    """Return the log probability of each label, its entropy, and whether it is the most likely token.

    Args:
        head: output embeddings.
        hidden_states: last hidden states, of shape (rows, length, size).
        labels: tokens at these positions, of shape (rows, length); `IGNORED_LABEL` is not scored.
        mean_logits: whether to return the mean of all logits, too.

    Returns:
        Tensors of shape (rows, length - 1), which are zero where the label is ignored.
    """
    labels = labels[:, 1:]
    mask = labels != IGNORED_LABEL
    scores, entropy, is_top1, means = score_tokens(
        head, hidden_states[:, :-1][mask], labels[mask], mean_logits
    )

    def at_labels(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return FusedCausalLMOutput(
        log_probs=at_labels(scores),
        entropy=at_labels(entropy),
        is_top1=at_labels(is_top1),
        mean_logits=None if means is None else at_labels(means),
        label_mask=mask,
    )


def score_tokens(
    head: torch.nn.Module,
    states: torch.Tensor,
    wanted: torch.Tensor,
    mean_logits: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return what `score` returns, for tokens in one row.

    Args:
        head: output embeddings.
        states: hidden states before the tokens, of shape (tokens, size).
        wanted: tokens to score, of shape (tokens,).
        mean_logits: whether to return the mean of all logits, too.

    Returns:
        The tokens' log probabilities, the entropies, whether they are the most likely ones, and the mean
        logits or None.
    """
    logits = head(states).float()
    log_probabilities = logits.log_softmax(-1)
    scores = log_probabilities.gather(-1, wanted[:, None])[:, 0]
    with torch.no_grad():
        entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
        is_top1 = log_probabilities.argmax(-1) == wanted
        means = logits.mean(-1) if mean_logits else None
    return scores, entropy, is_top1, means
