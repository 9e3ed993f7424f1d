"""Sample answers while training: what the model says to a few of the evaluation's questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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

Row = dict[str, Any]

MAX_NEW_TOKENS = 64
SHOWN = 60  # characters of a line, on a terminal


class Samples(TrainerCallback):
    """Asks a few questions at each evaluation, that of the base included, and keeps the answers.

    The training is the same with and without it: decoding is greedy, and the random state and the
    model's modes are put back. Answers are shown on a terminal only, since logs travel further than
    the data should; the file stays beside the model.

    Args:
        rows: the evaluation's conversations.
        count: how many of them to ask, spread evenly; 0 asks none.
        tokenizer: with a chat template.
        path: the JSONL file to write; epoch 0 is the base.
        main: whether to show and write them. Processes that train together all have to ask, since
            each may hold but a part of the model.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        count: int,
        tokenizer: PreTrainedTokenizerBase,
        path: Path,
        main: bool = True,
    ) -> None:
        self._chosen = spread(rows, count)
        self._main = main
        self._tokenizer = tokenizer
        self._path = path
        self.kept: list[Row] = []

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        if not self._chosen:
            return
        prompts = [row["messages"][:-1] for row in self._chosen]
        try:
            answers = answer(model, self._tokenizer, prompts)
            if self._main:
                self._keep(answers, round(state.epoch or 0, 2))
        except Exception as error:  # it is not worth the training
            self._chosen = []
            name = type(error).__name__
            print(f"train.py: no more sample answers ({name}); training goes on", file=sys.stderr)

    def _keep(self, answers: list[str], epoch: float) -> None:
        for row, said in zip(self._chosen, answers):
            question, expected = (message["content"] for message in row["messages"][-2:])
            kept = {"epoch": epoch, "question": question, "reference": expected, "answer": said}
            self.kept.append(kept)
            if sys.stderr.isatty():
                tqdm.write(_line(kept), file=sys.stderr)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.kept)
        self._path.write_text("".join(lines), encoding="utf-8")


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows from the first to the last, evenly spaced."""
    count = min(count, len(rows))
    if count < 2:
        return list(rows[:count])
    return [rows[place * (len(rows) - 1) // (count - 1)] for place in range(count)]


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[dict[str, str]]],
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """What the model says next in each conversation, greedily, all of them in one batch.

    Whether it was training, and the random state, are afterwards as they were.
    """
    inputs = tokenizer.apply_chat_template(
        list(conversations),
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
        # Generation goes on from the last column: that must be a token.
        tokenizer_kwargs={"padding_side": "left"},
    ).to(model.device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            found = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=find_end_tokens(tokenizer, model.generation_config.eos_token_id),
                pad_token_id=tokenizer.pad_token_id,
            )
    finally:
        for module, training in modes.items():
            module.training = training
    new = found[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _line(row: Row) -> str:
    parts = [" ".join(str(row[key]).split()) for key in ("question", "answer", "reference")]
    short = [part if len(part) <= SHOWN else part[: SHOWN - 1] + "…" for part in parts]
    mark = "=" if row["answer"] == row["reference"] else "≠"
    return f"  epoch {row['epoch']:g}: {short[0]} → {short[1]} {mark} {short[2]}"
