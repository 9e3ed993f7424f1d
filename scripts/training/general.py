"""What the model still can: its loss and answers on chats that are unlike the training rows.

The chats of --general-file are asked before and after the training. A loss that rises, or answers that
become wrong, show that the training made the model forget.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import templates
import torch
from console import print_line
from inputs import Row
from row_counts import IGNORED_LABEL
from samples import generate_answers, without_training
from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOSS_BATCH, ANSWER_BATCH = 8, 40  # rows
MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class GeneralAnswers:
    """A model's loss and answers on the general chats.

    Attributes:
        loss: mean loss of the reference answers' tokens, in nats per token.
        answers: the model's greedy answer to each chat.
    """

    loss: float
    answers: list[str]


@dataclass(frozen=True)
class General:
    """The general chats, with the results of the base and of the fine-tuned model.

    Attributes:
        rows: the chats.
        base: results before the training.
        tuned: results after it.
    """

    rows: Sequence[Row]
    base: GeneralAnswers
    tuned: GeneralAnswers

    def comparisons(self) -> list[AnswerPair]:
        """Return both answers to each chat."""
        return [
            AnswerPair(*(message["content"] for message in row["messages"][-2:]), base, tuned)
            for row, base, tuned in zip(self.rows, self.base.answers, self.tuned.answers)
        ]

    def write(self, path: Path) -> None:
        """Write both answers to each chat as JSONL."""
        lines = (json.dumps(asdict(pair), ensure_ascii=False) for pair in self.comparisons())
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@dataclass(frozen=True)
class AnswerPair:
    """The answers before and after the training; the attributes are the keys in general.jsonl.

    Attributes:
        question: the chat's last question.
        reference: the answer in --general-file.
        base_answer: the base model's answer.
        tuned_answer: the fine-tuned model's answer.
    """

    question: str
    reference: str
    base_answer: str
    tuned_answer: str


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: str, rows: Sequence[Row]
) -> GeneralAnswers:
    """Return a model's loss and greedy answers; the model's modes and the random state stay.

    Args:
        model: model to ask.
        tokenizer: tokenizer with the chat template of serving.
        template: the chat template with marks, for the loss.
        rows: chats.
    """
    print_line(f"asking {len(rows)} general chats")
    prompts = [row["messages"][:-1] for row in rows]
    answers = [
        answer
        for first in range(0, len(prompts), ANSWER_BATCH)
        for answer in generate_answers(
            model, tokenizer, prompts[first : first + ANSWER_BATCH], MAX_NEW_TOKENS
        )
    ]
    return GeneralAnswers(mean_loss(model, tokenizer, template, rows), answers)


def mean_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: str, rows: Sequence[Row]
) -> float:
    """Return the mean loss of the answers' tokens, in nats per token; see `measure`."""
    masked_rows = sorted((templates.mask_tokens(tokenizer, row, template) for row in rows), key=len)
    total, count = 0.0, 0
    with without_training(model):
        for first in range(0, len(masked_rows), LOSS_BATCH):
            batch = masked_rows[first : first + LOSS_BATCH]
            length = len(batch[-1])
            shape = (len(batch), length)
            tokens = torch.full(shape, tokenizer.pad_token_id or 0)
            labels, attention_mask = torch.full(shape, IGNORED_LABEL), torch.zeros(shape).long()
            for index, row in enumerate(batch):
                ids, is_answer = (torch.tensor(column) for column in zip(*row))
                tokens[index, : len(row)], attention_mask[index, : len(row)] = ids, 1
                labels[index, : len(row)] = ids.masked_fill(~is_answer, IGNORED_LABEL)
            device = model.device
            inputs = {"input_ids": tokens.to(device), "attention_mask": attention_mask.to(device)}
            logits = model(**inputs).logits[:, :-1].float()
            wanted = labels[:, 1:].to(device)
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1),
                wanted.flatten(),
                ignore_index=IGNORED_LABEL,
                reduction="sum",
            ).item()
            count += int((wanted != IGNORED_LABEL).sum())
    return total / count
