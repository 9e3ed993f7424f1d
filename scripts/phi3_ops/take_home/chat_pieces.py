"""Take a chat template apart: the text before and after the content of each role.

Ollama and Foundry Local have template languages of their own. A template whose text for a message depends
on the role alone can be written in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OpsError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
_TAG = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
# Contents that appear in no template.
_CONTENTS = {SYSTEM: "[1st-content]", USER: "[2nd-content]", ASSISTANT: "[3rd-content]"}
_MARK = re.compile(r"\[(?:1st|2nd|3rd)-content\]")
_CHATS = ((USER,), (SYSTEM, USER), (USER, ASSISTANT, USER), (SYSTEM, USER, ASSISTANT, USER))


@dataclass(frozen=True)
class Piece:
    """The text around the content of a message.

    Attributes:
        before: text before the content.
        after: text after the content.
    """

    before: str
    after: str

    def around(self, content: str) -> str:
        """Return the text of a message."""
        return f"{self.before}{content}{self.after}"


@dataclass(frozen=True)
class ChatPieces:
    """A chat template in pieces.

    Attributes:
        start: text before the first message.
        pieces: the piece of each role.
        default_system: content of the system message that is added to a chat without one, or "".
    """

    start: str
    pieces: dict[str, Piece]
    default_system: str

    @property
    def answer_start(self) -> str:
        """Text after which the model answers."""
        return self.pieces[ASSISTANT].before

    def render(self, roles: Sequence[str]) -> str:
        """Return the prompt of a chat with the example contents."""
        messages = [(role, _CONTENTS[role]) for role in roles]
        if self.default_system and roles[0] != SYSTEM:
            messages.insert(0, (SYSTEM, self.default_system))
        text = "".join(self.pieces[role].around(content) for role, content in messages)
        return f"{self.start}{text}{self.answer_start}"


def plain_template(template: str) -> str:
    """Return a chat template without the marks around the answers, which other programs cannot read.

    The marks become conditions that are always true, so that the template renders the same text.
    """
    return _TAG.sub(lambda m: f"{{%{m[1]} {'endif' if m[2] else 'if true'} {m[3]}%}}", template)


def split_template(tokenizer: Any, end_tokens: Sequence[str], reader: str) -> ChatPieces:
    """Return the pieces of a tokenizer's chat template.

    Args:
        tokenizer: transformers' tokenizer.
        end_tokens: tokens that end a message.
        reader: the program whose template is to be written, for the error.

    Raises:
        OpsError: the template cannot be written in pieces.
    """
    try:
        pieces = _split(tokenizer, end_tokens)
        is_equal = all(pieces.render(roles) == _render(tokenizer, roles) for roles in _CHATS)
    except (
        Exception
    ):  # a template may raise anything, and one that changes the contents has no marks
        is_equal = False
    if not is_equal:
        raise OpsError(
            f"the model's chat template cannot be written as {reader}'s",
            "Its text for a message must depend on the role alone; export the model to gguf or onnx.",
        )
    return pieces


def _render(tokenizer: Any, roles: Sequence[str]) -> str:
    messages = [{"role": role, "content": _CONTENTS[role]} for role in roles]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _split(tokenizer: Any, end_tokens: Sequence[str]) -> ChatPieces:
    def texts(roles: Sequence[str]) -> list[str]:
        return _MARK.split(_render(tokenizer, roles))

    first, after_system, after_user, after_answer, _ = texts(_CHATS[-1])
    system_after, user_before = _split_joint(after_system, end_tokens)
    user_after, assistant_before = _split_joint(after_user, end_tokens)
    assistant_after, _ = _split_joint(after_answer, end_tokens)
    without_system = texts((USER,))[0].removesuffix(user_before)
    start, system_before, default = _system(first, system_after, without_system)
    pieces = {
        SYSTEM: Piece(system_before, system_after),
        USER: Piece(user_before, user_after),
        ASSISTANT: Piece(assistant_before, assistant_after),
    }
    return ChatPieces(start, pieces, default)


def _split_joint(text: str, end_tokens: Sequence[str]) -> tuple[str, str]:
    """Split the text between two contents after the token that ends the first message."""
    tokens = "|".join(map(re.escape, end_tokens))
    match = re.match(rf"(.*?(?:{tokens})\s*)(.*)", text, re.DOTALL)
    return (match[1], match[2]) if match else ("", text)


def _system(first: str, after: str, no_system: str) -> tuple[str, str, str]:
    """Return the text before the first message, that before a system message, and its default."""
    if no_system.startswith(first) and no_system.endswith(after) and no_system != first:
        return "", first, no_system[len(first) :].removesuffix(after)
    return no_system, first.removeprefix(no_system), ""
