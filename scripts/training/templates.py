"""Chat templates in which the assistant's tokens are marked, since only those are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from inputs import Row, TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# TRL has none for Phi-4-mini, whose turns have no line breaks. Source of what it renders: the
# `chat_template` of microsoft/Phi-4-mini-instruct; tools are left out, which rows do not have.
PHI4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"
)
GENERATION = "{% generation"


def marked(tokenizer: PreTrainedTokenizerBase, model: str) -> str:
    """A template that renders what the tokenizer's own does, with the answers marked.

    Returns:
        The tokenizer's own where it has the marks, else the first of Phi-3's, Phi-3.5's and
        Phi-4-mini's that renders every kind of conversation as the tokenizer's own does.

    Raises:
        TrainError: there is none: training would be on the questions too.
    """
    from trl.chat_template_utils import phi3_5_training_chat_template, phi3_training_chat_template

    own = tokenizer.chat_template
    if isinstance(own, str):
        if GENERATION in own.replace("{%-", "{%"):
            return own
        rendered = renderings(tokenizer, own)
        for known in (phi3_training_chat_template, phi3_5_training_chat_template, PHI4_MINI):
            if renderings(tokenizer, known) == rendered:
                return str(known)
    fix = "use a Phi-3 instruct model, or mark the answers with {% generation %} in its template"
    raise TrainError("its chat template does not show what the assistant says", model, fix)


def renderings(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """What a template makes of the kinds of conversation that there are."""
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    empty = [{"role": "system", "content": ""}, *turns[1:]]
    again = [*turns, *turns[1:]]
    cases = [
        (turns[1:], False),
        (turns, False),
        (empty, False),
        (again, False),
        (turns[:2], True),
        (again[:-1], True),
    ]
    return [
        str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt, chat_template=template
            )
        )
        for turns, prompt in cases
    ]


def tokens(tokenizer: PreTrainedTokenizerBase, row: Row, template: str) -> list[tuple[int, bool]]:
    """A conversation's tokens, each with whether it is trained on."""
    found = tokenizer.apply_chat_template(
        row["messages"],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return [
        (token, bool(mask)) for token, mask in zip(found["input_ids"], found["assistant_masks"])
    ]


def check(tokenizer: PreTrainedTokenizerBase, row: Row, template: str, model: str) -> None:
    """Check that what is trained on is each answer and its end, and nothing else.

    Raises:
        TrainError: it is not.
    """
    answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    trained = [text for text, is_trained in spans(tokenizer, row, template) if is_trained]
    for answer, text in zip(answers, trained) if len(answers) == len(trained) else [("", None)]:
        # Some tokenizers put or drop a blank at either end.
        if text is None or not text.strip().startswith(answer.strip()) or text.strip() == answer:
            fix = "correct its chat template; --show-mask prints what would be trained on"
            raise TrainError(
                "the tokens to train on are not the answers and their ends", model, fix
            )


def spans(
    tokenizer: PreTrainedTokenizerBase, row: Row, template: str
) -> Iterator[tuple[str, bool]]:
    """A conversation's text in stretches, each with whether it is trained on."""
    for is_trained, group in groupby(tokens(tokenizer, row, template), key=lambda pair: pair[1]):
        yield tokenizer.decode([token for token, _ in group]), is_trained


def shown(tokenizer: PreTrainedTokenizerBase, row: Row, template: str) -> str:
    """A line a token: its number, `train` or `-`, its text."""
    return "\n".join(
        f"{number:5} {'train' if is_trained else '-':5} {tokenizer.decode([token])!r}"
        for number, (token, is_trained) in enumerate(tokens(tokenizer, row, template))
    )
