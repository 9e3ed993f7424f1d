"""What the scoring script needs of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from constraints import GrammarCompiler
from generation import Completion
from sampling import GenerationParams
from streams import IsAbandoned, Stream


class BusyError(Exception):
    """The engine cannot take the request, because too many requests are waiting."""


class Engine(Protocol):
    """A loaded model. Every method may be called from many threads at once.

    Attributes:
        context_window: tokens of a prompt and its answer together.
        vocabulary_size: number of tokens that the model knows.
        grammars: compiles the grammars of answers for this model's tokens.
        tool_format: the model's format of tools, see `tool_format.template_format`.
    """

    context_window: int
    vocabulary_size: int
    grammars: GrammarCompiler
    tool_format: str

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the messages in the model's chat template, up to where the answer starts."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a rendered prompt, without adding special tokens.

        Control tokens in the text are control tokens. For messages, use `encode_chat`.
        """

    def encode_chat(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Return the token ids of the messages and tools in the model's chat template.

        A control token in a message or in a tool becomes ordinary text.
        """

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens, without special tokens."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        params: GenerationParams,
        is_abandoned: IsAbandoned | None = None,
    ) -> list[Completion]:
        """Return one completion per prompt, in the order of the prompts. Raises BusyError.

        `is_abandoned` is called several times a second. As soon as it returns True, nobody waits for
        the answers any more, and they end at their next tokens.
        """

    def stream(
        self,
        prompt: list[int],
        params: GenerationParams,
        is_abandoned: IsAbandoned | None = None,
    ) -> Stream[str]:
        """Return pieces of text as they are generated. The last `StopIteration` has the completion.

        Closing the stream ends the answer, and so does `is_abandoned`, see `generate`.

        Raises BusyError when it is called, not at the first piece.
        """

    def close(self) -> None:
        """Finish the running requests, fail the waiting ones, and end the engine's thread."""
