"""Sample answers: during training, the model answers a few questions of the evaluation file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from console import print_line
from inputs import Row, evenly_spaced
from outputs import find_end_tokens
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

MAX_NEW_TOKENS = 64
MAX_PRINTED_CHARACTERS = 60  # per text, on a terminal


@dataclass(frozen=True)
class SampleAnswer:
    """One answer to a question of the evaluation file; its attributes are the keys in samples.jsonl.

    Attributes:
        epoch: number of epochs trained so far; 0 is the base model.
        question: the conversation's last question.
        reference: the answer in the evaluation file.
        answer: the model's answer.
        is_trained: whether a training row has this answer, to a question in other words. Without such a
            row, the model can know the answer only from its base.
    """

    epoch: float
    question: str
    reference: str
    answer: str
    is_trained: bool = True


class Samples(TrainerCallback):
    """Asks a few questions at each evaluation, including the base model's, and stores the answers.

    All processes that train together generate the answers, since each may hold only a part of the
    model; the main process prints and writes them. The training is the same with and without the
    samples: decoding is greedy, and the random state and the model's modes are restored. The answers
    are printed on a terminal only, since logs are often shared more widely than the data should be.

    Args:
        rows: the evaluation's conversations. Questions with a trained answer are preferred.
        train_rows: the training's conversations.
        count: number of questions, evenly spaced over the rows; 0 turns the samples off.
        tokenizer: tokenizer with a chat template.
        path: JSONL file to write.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        train_rows: Sequence[Row],
        count: int,
        tokenizer: PreTrainedTokenizerBase,
        path: Path,
    ) -> None:
        trained_answers = {_answer(row) for row in train_rows}
        rephrased = [row for row in rows if _answer(row) in trained_answers]
        self._rows = evenly_spaced(rephrased or rows, count)
        self._is_trained = bool(rephrased)
        self._tokenizer = tokenizer
        self._path = path
        self.answers: list[SampleAnswer] = []

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        if not self._rows:
            return
        prompts = [row["messages"][:-1] for row in self._rows]
        try:
            answers = generate_answers(model, self._tokenizer, prompts)
            if state.is_world_process_zero:
                self._store(answers, round(state.epoch or 0, 2))
        except Exception as error:  # the samples are not worth stopping the training
            self._rows = []
            name = type(error).__name__
            line = f"sample answers failed and are turned off ({name}); training continues"
            print_line(line, from_every_process=True)

    def drop_after(self, epoch: float) -> None:
        """Drop the answers after an epoch, so that the last ones are those of the saved model."""
        later = [sample for sample in self.answers if sample.epoch > round(epoch, 2)]
        if later:
            self.answers = [sample for sample in self.answers if sample not in later]
            self._write()

    def _store(self, answers: Sequence[str], epoch: float) -> None:
        for row, answer in zip(self._rows, answers):
            question, reference = (message["content"] for message in row["messages"][-2:])
            sample = SampleAnswer(epoch, question, reference, answer, self._is_trained)
            self.answers.append(sample)
            if sys.stderr.isatty():
                tqdm.write(format_line(sample), file=sys.stderr)
        self._write()

    def _write(self) -> None:
        lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in self.answers)
        self._path.write_text("".join(lines), encoding="utf-8")


def _answer(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict[str, str]]],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """Return the model's next message in each conversation: greedy decoding, in one batch.

    The training modes and the random state are restored afterwards.

    Args:
        model: model to ask.
        tokenizer: tokenizer with a chat template.
        conversations: messages with a role and a content, ending with a question.
        max_new_tokens: maximum length of an answer, in tokens.
    """
    inputs = tokenizer.apply_chat_template(
        list(conversations),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
        # Generation continues from the last column, which must not be padding.
        tokenizer_kwargs={"padding_side": "left"},
    ).to(model.device)
    with without_training(model), torch.random.fork_rng():
        tokens = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=find_end_tokens(tokenizer, model.generation_config.eos_token_id),
            pad_token_id=tokenizer.pad_token_id,
        )
    new_tokens = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new_tokens, skip_special_tokens=True)]


@contextmanager
def without_training(model: PreTrainedModel) -> Iterator[None]:
    """Turn off dropout and gradients, and restore the modes of all modules afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def format_line(sample: SampleAnswer) -> str:
    """Return a sample answer as one line, with long texts cut off."""
    question, answer, reference = map(_shorten, (sample.question, sample.answer, sample.reference))
    sign = "=" if sample.answer == sample.reference else "≠"
    note = "" if sample.is_trained else " (not trained on)"
    return f"  epoch {sample.epoch:g}: {question} → {answer} {sign} {reference}{note}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= MAX_PRINTED_CHARACTERS:
        return line
    return line[: MAX_PRINTED_CHARACTERS - 1] + "…"
