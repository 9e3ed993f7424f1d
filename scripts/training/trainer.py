"""TRL's trainer for conversations, with counted rows and batches without wasted computation."""

from __future__ import annotations

import copy
from typing import Any

import batches
import row_counts
from checkpointing import CheckpointingTrainer
from datasets import Dataset, IterableDataset
from inputs import TrainError
from trl import SFTTrainer

CHECKED_ROWS = 1000


class Trainer(CheckpointingTrainer, SFTTrainer):
    """SFTTrainer that counts the rows that max_length shortens.

    Args:
        rows_per_sequence: average number of rows in a sequence of a batch.
        checked_rows: number of rows of a stream of which those that max_length shortens are counted
            before the training.
        args, kwargs: arguments of CheckpointingTrainer and SFTTrainer.

    Attributes:
        streamed: counts of the rows that were read, if the training rows are a stream.

    Raises:
        TrainError: too many rows are cut or dropped, or a row has no token to train on.
    """

    def __init__(
        self,
        *args: Any,
        rows_per_sequence: int = 1,
        checked_rows: int = CHECKED_ROWS,
        **kwargs: Any,
    ) -> None:
        self._checked_rows = checked_rows
        if rows_per_sequence > 1:
            pad_token_id = kwargs["processing_class"].pad_token_id
            kwargs["data_collator"] = batches.SharedSequences(rows_per_sequence, pad_token_id)
        self.streamed: row_counts.StreamCounts | None = None
        super().__init__(*args, **kwargs)
        if self.streamed is not None:
            self.streamed.total = self.streamed.cut = self.streamed.dropped = (
                0  # TRL looked at rows
            )
        if self.args.device.type == "cpu":
            batches.score_answers_only(self.plain_model)
        if rows_per_sequence > 1:
            batches.accept_shared_sequences(self.plain_model, self.args.max_length)

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,
        args: Any,
        packing: bool,
        formatting_func: Any,
        dataset_name: str,
    ) -> Any:
        """Tokenize the rows, count those that max_length shortens, and then cut and pack the rest."""
        # A stream is tokenized later, when the tokenizer has the template of serving again.
        self.chat_template = self.chat_template or processing_class.chat_template
        uncut = copy.copy(args)
        uncut.max_length, uncut.shuffle_dataset = None, False
        try:
            tokenized = super()._prepare_dataset(
                dataset, processing_class, uncut, False, formatting_func, dataset_name
            )
        except RuntimeError as error:
            if "no assistant tokens" not in str(error):
                raise
            name = row_counts.FILES.get(dataset_name, dataset_name)
            problem = f"a row of the {name} has no token to train on"
            fix = "correct the template so that it marks every answer with {% generation %}"
            raise TrainError(problem, "the model's chat template", fix) from error
        is_split = packing and args.packing_strategy == "bfd_split"
        is_stream = isinstance(tokenized, IterableDataset)
        rows = (
            Dataset.from_list(list(tokenized.take(self._checked_rows))) if is_stream else tokenized
        )
        trainable, counts = row_counts.drop_untrainable(rows, args.max_length, is_split)
        row_counts.check(counts, dataset_name, args.max_length, self._max_cut_share)
        self.row_counts[dataset_name] = counts
        if is_stream:
            self.streamed = row_counts.StreamCounts()
            trainable = tokenized.filter(self.streamed.filter(args.max_length))
        return super()._prepare_dataset(
            trainable, processing_class, args, packing, formatting_func, dataset_name
        )
