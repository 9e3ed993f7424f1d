"""Conversations replayed turn by turn: the model is asked each question after its own answers.

A row is one of `phi3 data`'s: `messages`, with the questions in the user's turns and the references in
the assistant's. The first questions of all conversations are one batch, their second questions the next:
each is a run of prompt flow's store like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OpsError
from ..files import read_jsonl, write_jsonl
from .batch import DEFAULT_IN_FLIGHT, Batch, Connections, ProgressCallback, new_run_name, run_flow

COLUMNS = {"question": "${data.question}", "chat_history": "${data.chat_history}"}


@dataclass(frozen=True)
class Turn:
    """A round: its batch, and the rows that it asked."""

    number: int
    asked: Batch
    rows: Sequence[Mapping[str, Any]]
    data: Path


def replay_conversations(
    flow: Path,
    data: Path,
    folder: Path,
    *,
    title: str,
    connections: Connections | None = None,
    in_flight: int = DEFAULT_IN_FLIGHT,
    watch: ProgressCallback | None = None,
) -> list[Turn]:
    """Replay the conversations of a file.

    A conversation ends with its first failed turn: what would come after it was never said. Its
    later turns are not asked, and `lost` counts them.

    Args:
        flow: a flow with the inputs `question` and `chat_history` and the output `answer`.
        data: JSONL with `messages`.
        folder: gets one data file a turn, which prompt flow's store refers to.
        title: of the runs; their number is put behind it.
        connections: node -> input -> connection, in place of what the flow says.
        in_flight: lines at once, at most.
        watch: called whenever a line has ended.

    Raises:
        OpsError: a row has no questions, or a batch failed as a whole.
    """
    talks = [_pairs(row, f"{data}, row {n}") for n, row in enumerate(read_jsonl(data), 1)]
    said: list[list[dict[str, Any]]] = [[] for _ in talks]
    turns: list[Turn] = []
    for number in range(max(map(len, talks), default=0)):
        # Still there: conversations that have this turn, and whose turns so far were all answered.
        there = [n for n, pairs in enumerate(talks) if len(said[n]) == number < len(pairs)]
        if not there:
            break
        rows = [_row(n, number, talks[n][number], said[n]) for n in there]
        name = f"{title}-turn{number + 1}"
        file = folder / f"{new_run_name(name)}.jsonl"
        write_jsonl(file, rows)
        asked = run_flow(
            flow,
            file,
            COLUMNS,
            title=name,
            connections=connections,
            in_flight=in_flight,
            watch=watch,
        )
        turns.append(Turn(number + 1, asked, rows, file))
        for line, answer in asked.answers.items():
            question = {"question": rows[line]["question"]}
            said[there[line]].append({"inputs": question, "outputs": {"answer": answer["answer"]}})
        if asked.interrupted:
            break
    return turns


def count_unanswered_turns(data: Path, turns: Sequence[Turn]) -> int:
    """Turns of the file that were never answered: those that failed, and those that came after them."""
    wanted = sum(len(_pairs(row, str(data))) for row in read_jsonl(data))
    return wanted - sum(len(turn.asked.answers) for turn in turns)


def _row(
    talk: int, turn: int, pair: tuple[str, str], said: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    question, reference = pair
    row = {"conversation": talk, "turn": turn + 1, "question": question, "ground_truth": reference}
    return {**row, "chat_history": list(said)}


def _pairs(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """A conversation's questions, each with its reference, or "" where there is none."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise OpsError(f"{where}: no `messages`", "Make the file with `phi3 data`.")
    pairs = []
    for place, message in enumerate(messages):
        if message.get("role") == "user":
            after = messages[place + 1] if place + 1 < len(messages) else {}
            reference = after.get("content", "") if after.get("role") == "assistant" else ""
            pairs.append((str(message.get("content", "")), str(reference)))
    if not pairs:
        raise OpsError(f"{where}: nobody asks anything", "A conversation has a user's turn.")
    return pairs
