"""TRL's trainer for preferences. The reference is the base without its adapters: no second copy of it."""

from __future__ import annotations

import copy
from typing import Any

import batches
import progress
import row_counts
from checkpointing import CheckpointingTrainer
from trl import DPOTrainer
from trl.trainer import dpo_trainer


class PreferenceTrainer(CheckpointingTrainer, DPOTrainer):
    """DPOTrainer that counts the rows that max_length shortens.

    A starting adapter is copied by TRL, and the copy is the reference.

    Args:
        args, kwargs: arguments of CheckpointingTrainer and DPOTrainer.

    Raises:
        TrainError: too many rows are cut or dropped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.device.type == "cpu" and not self.args.use_weighting:
            batches.score_answers_only(self.plain_model, mean_logits=True)

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        """Tokenize the rows, count those that max_length shortens, and drop those without an answer."""
        uncut = copy.copy(args)
        uncut.max_length = None
        tokenized = super()._prepare_dataset(dataset, processing_class, uncut, dataset_name)
        trainable, counts = row_counts.drop_long_prompts(tokenized, args.max_length)
        row_counts.check(counts, dataset_name, args.max_length, self._max_cut_share)
        self.row_counts[dataset_name] = counts
        return trainable

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Compute the reference's log probabilities, with train.py's progress instead of TRL's bar."""
        title = f"reference of the {row_counts.FILES.get(name, name)}"
        original_bar = dpo_trainer.tqdm
        dpo_trainer.tqdm = lambda iterable, **_: progress.track(iterable, title)
        try:
            return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            dpo_trainer.tqdm = original_bar
