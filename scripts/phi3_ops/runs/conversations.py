"""Replay conversations turn by turn: the model gets each question after its own earlier answers.

A row has `messages`, as `phi3 data` writes them: the user's turns are the questions, and the assistant's
turns are the references. The first questions of all conversations are one batch, the second questions are
the next one. Each batch is an ordinary run of Prompt flow's store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl, write_jsonl
from ..pf import PHI3, Connections
from .batch import (
    DEFAULT_IN_FLIGHT,
    Batch,
    BatchInterrupted,
    ProgressCallback,
    new_run_name,
    run_flow,
)

COLUMNS = {"question": "${data.question}", "chat_history": "${data.chat_history}"}


@dataclass(frozen=True)
class Turn:
    """One turn of all conversations.

    Attributes:
        number: number of the turn, from 1.
        asked: the batch of its questions.
        rows: the rows of that batch's data file.
        data: that data file.
        interrupted: whether a Ctrl-C stopped the batch.
    """

    number: int
    asked: Batch
    rows: Sequence[Mapping[str, Any]]
    data: Path
    interrupted: bool = False


@dataclass
class _Conversation:
    """A conversation while it is replayed.

    Attributes:
        number: its row in the data file, from 0.
        pairs: each question with its reference, which is empty if the row has none.
        history: the questions and answers so far, as `chat_history` of the flow.
    """

    number: int
    pairs: list[tuple[str, str]]
    history: list[dict[str, Any]] = field(default_factory=list)

    def has_turn(self, turn: int) -> bool:
        """Return whether it has that turn (from 0), and every earlier turn was answered."""
        return len(self.history) == turn < len(self.pairs)

    def row(self, turn: int) -> dict[str, Any]:
        """Return the data row of a turn (from 0)."""
        question, reference = self.pairs[turn]
        return {
            "conversation": self.number,
            "turn": turn + 1,
            "question": question,
            "ground_truth": reference,
            "chat_history": list(self.history),
        }

    def add_answer(self, answer: str) -> None:
        """Add the answer to the present question to the history."""
        question, _ = self.pairs[len(self.history)]
        self.history.append({"inputs": {"question": question}, "outputs": {"answer": answer}})


def replay_conversations(
    flow: Path,
    data: Path,
    folder: Path,
    *,
    title: str,
    connections: Connections | None = None,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: ProgressCallback | None = None,
    engine: str = PHI3,
) -> list[Turn]:
    """Replay the conversations of a file, and return their turns.

    A conversation ends with its first failed turn, because the later questions refer to an answer that
    does not exist. `count_unanswered_turns` counts the turns after it.

    Args:
        flow: a flow with the inputs `question` and `chat_history` and the output `answer`.
        data: JSONL with `messages`.
        folder: folder for the data file of each turn, to which Prompt flow's store refers.
        title: display name of the runs; the number of the turn is appended.
        connections: node -> input -> connection that replaces the flow's.
        in_flight: maximum number of lines that run at once.
        on_progress: called whenever a line has ended.
        engine: as in `run_flow`.

    Returns:
        The turns. A Ctrl-C ends the replay: the last turn then is `interrupted`.

    Raises:
        OpsError: a row has no questions, or a batch failed as a whole.
    """
    conversations = _read_conversations(data)
    turns: list[Turn] = []
    while active := [each for each in conversations if each.has_turn(len(turns))]:
        rows = [conversation.row(len(turns)) for conversation in active]
        name = f"{title}-turn{len(turns) + 1}"
        file = folder / f"{new_run_name(name)}.jsonl"
        write_jsonl(file, rows)
        try:
            asked = run_flow(
                flow,
                file,
                COLUMNS,
                title=name,
                connections=connections,
                in_flight=in_flight,
                on_progress=on_progress,
                engine=engine,
            )
        except BatchInterrupted as interruption:
            turns.append(Turn(len(turns) + 1, interruption.batch, rows, file, interrupted=True))
            break
        turns.append(Turn(len(turns) + 1, asked, rows, file))
        for line, outputs in asked.answers.items():
            active[line].add_answer(outputs["answer"])
    return turns


def count_unanswered_turns(data: Path, turns: Sequence[Turn]) -> int:
    """Return how many turns of a file have no answer: the failed ones and all turns after them."""
    total = sum(len(conversation.pairs) for conversation in _read_conversations(data))
    return total - sum(len(turn.asked.answers) for turn in turns)


def _read_conversations(data: Path) -> list[_Conversation]:
    return [
        _Conversation(number, list(_question_pairs(row, f"{data}, row {number + 1}")))
        for number, row in enumerate(read_jsonl(data))
    ]


def _question_pairs(row: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield each question of a conversation with its reference, which may be empty."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise OpsError(f"{where} has no `messages`", "Create the file with `phi3 data`.")
    if not any(message.get("role") == "user" for message in messages):
        raise OpsError(f"{where} has no question", "Add a message with the role `user`.")
    for message, following in zip(messages, [*messages[1:], {}]):
        if message.get("role") == "user":
            is_answered = following.get("role") == "assistant"
            reference = following.get("content", "") if is_answered else ""
            yield str(message.get("content", "")), str(reference)
