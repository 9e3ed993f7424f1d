"""One piece of feedback on one answer.

Kinds and their fields:

- `thumbs_up` and `thumbs_down`: about `answer`.
- `edit`: `edited` is what `answer` should have been.
- `choice`: of two answers, `chosen` is better than `rejected`. `answer` is the chosen one, from
  `connection`; the rejected one is from `against`.
- `comment`: `comment` is about `answer`.

The other kinds may also have a comment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, Literal, get_args

Kind = Literal["thumbs_up", "thumbs_down", "edit", "choice", "comment"]
KINDS: tuple[str, ...] = get_args(Kind)
ROLES = ("user", "assistant")
MAX_TEXT = 200_000  # characters of a question, an answer or a message
MAX_COMMENT = 10_000  # characters
MAX_NAME = 200  # characters of a name or an id
MAX_HISTORY = 1_000  # messages
MAX_TURN = 1_000_000
_TEXTS = ("question", "answer", "edited", "chosen", "rejected")
_NAMES = ("id", "who", "conversation", "flow", "flow_version", "model", "connection", "against")
_REQUIRED_NAMES = ("id", "conversation", "flow")
# Kind -> the optional fields that it needs; no other kind may have them.
_NEEDED: dict[str, tuple[str, ...]] = {"edit": ("edited",), "choice": ("chosen", "rejected")}


class FeedbackFieldError(ValueError):
    """A field of a piece of feedback is not valid.

    Attributes:
        field: name of the field, such as `history[0].role`.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


@dataclass(frozen=True)
class HistoryMessage:
    """An earlier message of a conversation.

    Attributes:
        role: `user` or `assistant`.
        content: its text.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Feedback:
    """One piece of feedback on one answer. A correction of it is another piece.

    Attributes:
        id: unique; a second piece with the same id is the same piece, sent again.
        time: time at which it was given, as `utc_text` writes it.
        who: name of the user, or None if it is unknown.
        kind: one of `KINDS`.
        conversation: id of the conversation.
        turn: number of the question in the conversation, from 1.
        history: the earlier messages of the conversation, in order.
        question: the question.
        answer: the answer.
        edited: the corrected answer of an `edit`.
        chosen: the better answer of a `choice`.
        rejected: the other answer of a `choice`.
        comment: a comment, or None.
        flow: name of the flow.
        flow_version: version of the flow, or None.
        model: name of the model as the connection states it, or None.
        connection: name of the connection, or None for a flow without one.
        against: name of the connection whose answer was displayed side by side, or None.

    Raises:
        FeedbackFieldError: a field is missing, too long, or does not belong to the kind.
    """

    id: str
    time: str
    who: str | None
    kind: Kind
    conversation: str
    turn: int
    history: tuple[HistoryMessage, ...]
    question: str
    answer: str
    flow: str
    edited: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    comment: str | None = None
    flow_version: str | None = None
    model: str | None = None
    connection: str | None = None
    against: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FeedbackFieldError("kind", f"is not one of {', '.join(KINDS)}")
        _require_utc(self.time)
        if not 1 <= self.turn <= MAX_TURN:
            raise FeedbackFieldError("turn", f"is not between 1 and {MAX_TURN}")
        _require_history(self.history)
        for name in _NAMES:
            _require_text(name, getattr(self, name), MAX_NAME)
        for name in _TEXTS:
            _require_text(name, getattr(self, name), MAX_TEXT)
        _require_text("comment", self.comment, MAX_COMMENT)
        for name in _REQUIRED_NAMES:
            if not getattr(self, name):
                raise FeedbackFieldError(name, "is missing")
        self._require_fields_of_kind()

    def _require_fields_of_kind(self) -> None:
        for kind, names in _NEEDED.items():
            for name in names:
                value = getattr(self, name)
                if kind != self.kind and value is not None:
                    raise FeedbackFieldError(name, f"belongs to the kind {kind}, not {self.kind}")
                if kind == self.kind and not (value or "").strip():
                    raise FeedbackFieldError(name, f"is missing, but the kind is {kind}")
        if self.kind == "comment" and not (self.comment or "").strip():
            raise FeedbackFieldError("comment", "is missing, but the kind is comment")

    def redacted(self, redact: Callable[[str], str]) -> Feedback:
        """Return the feedback with every text that a user or a model wrote passed through a function.

        Args:
            redact: returns a text without secrets.
        """
        history = tuple(replace(each, content=redact(each.content)) for each in self.history)
        changes: dict[str, Any] = {"history": history}
        for name in (*_TEXTS, "comment", "who", "conversation"):
            if (text := getattr(self, name)) is not None:
                changes[name] = redact(text)
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return the feedback as a JSON object, with all fields."""
        return {**asdict(self), "history": [asdict(message) for message in self.history]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Feedback:
        """Return the feedback that `to_json` wrote.

        Raises:
            FeedbackFieldError: a field is unknown, missing or not valid.
        """
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(content) - names):
            problem = f"is not a field; the fields are {', '.join(sorted(names))}"
            raise FeedbackFieldError(unknown[0][:MAX_NAME], problem)
        for name in ("id", "time", "kind", "conversation", "flow"):
            if not isinstance(content.get(name), str):
                raise FeedbackFieldError(name, "is missing" if name not in content else _NOT_TEXT)
        turn = content.get("turn")
        if type(turn) is not int:
            raise FeedbackFieldError("turn", "is not an integer")
        values = {"who": None, "question": "", "answer": "", **content}
        return cls(**{**values, "history": parse_history(content.get("history", []))})


_NOT_TEXT = "is not a text"


def parse_history(value: object) -> tuple[HistoryMessage, ...]:
    """Return the messages of a JSON array of `{"role": …, "content": …}`.

    Raises:
        FeedbackFieldError: the value is not such an array.
    """
    if not isinstance(value, (list, tuple)):
        raise FeedbackFieldError("history", "is not an array of messages")
    messages = []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping) or set(item) != {"role", "content"}:
            problem = "is not an object with role and content"
            raise FeedbackFieldError(f"history[{index}]", problem)
        messages.append(HistoryMessage(item["role"], item["content"]))
    return tuple(messages)


def _require_history(messages: tuple[HistoryMessage, ...]) -> None:
    if len(messages) > MAX_HISTORY:
        raise FeedbackFieldError("history", f"has more than {MAX_HISTORY} messages")
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            problem = f"is not one of {', '.join(ROLES)}"
            raise FeedbackFieldError(f"history[{index}].role", problem)
        if message.content is None:
            raise FeedbackFieldError(f"history[{index}].content", _NOT_TEXT)
        _require_text(f"history[{index}].content", message.content, MAX_TEXT)


def _require_text(name: str, text: object, longest: int) -> None:
    if text is None and name not in ("question", "answer"):
        return
    if not isinstance(text, str):
        raise FeedbackFieldError(name, _NOT_TEXT)
    if len(text) > longest:
        raise FeedbackFieldError(name, f"has more than {longest} characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise FeedbackFieldError(name, "contains half of a surrogate pair") from None


def utc_text(moment: datetime) -> str:
    """Return a time in ISO 8601 with milliseconds and the time zone UTC; such texts sort by time."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def _require_utc(text: str) -> None:
    try:
        is_utc = utc_text(datetime.fromisoformat(text)) == text
    except (ValueError, OverflowError):
        is_utc = False
    if not is_utc:
        problem = "is not a time in ISO 8601 with milliseconds and the time zone +00:00"
        raise FeedbackFieldError("time", problem)
