"""Chat templates that mark the assistant's tokens, since only those are trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from inputs import Row, TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# TRL has no training template for Phi-4-mini, whose turns have no line breaks. It renders the same text
# as the `chat_template` of microsoft/Phi-4-mini-instruct. The condition is written as in that template,
# since `tool_format.template_format` looks for it.
PHI4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% elif message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}"
    "{{ message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% else %}{% generation %}{{ eos_token }}{% endgeneration %}{% endif %}"
)
# ChatML, as SmolLM2 and others have it. An end of turn is trained on, the line break after it is not.
CHATML_MESSAGES = (
    "{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# What a ChatML template puts before a conversation that has no system message.
CHATML_DEFAULT = re.compile(
    r"<\|im_start\|>system\n.*?<\|im_end\|>\n(?=<\|im_start\|>user\n)", re.DOTALL
)
GENERATION = "{% generation"


def training_template(tokenizer: PreTrainedTokenizerBase, model: str) -> str:
    """Return a template that renders the same text as the tokenizer's and marks the answers.

    TRL recognizes a template only if it is equal to a known one, character by character. This function
    compares the rendered text instead.

    Args:
        tokenizer: tokenizer with a chat template.
        model: the model's name, for the error.

    Returns:
        The tokenizer's template if it has marks. Otherwise the first of Phi-3's, Phi-3.5's,
        Phi-4-mini's and ChatML that renders every kind of conversation as the tokenizer's template does.

    Raises:
        TrainError: no template is suitable; the questions would be trained on too.
    """
    from trl.chat_template_utils import phi3_5_training_chat_template, phi3_training_chat_template

    own_template = tokenizer.chat_template
    if isinstance(own_template, str):
        if GENERATION in own_template.replace("{%-", "{%"):
            return own_template
        rendered = render_cases(tokenizer, own_template)
        known = (phi3_training_chat_template, phi3_5_training_chat_template, PHI4_MINI)
        for template in (*known, chatml_template(tokenizer)):
            if render_cases(tokenizer, template) == rendered:
                return str(template)
    fix = "use a Phi-3 instruct model, or mark the answers with {% generation %} in its template"
    raise TrainError("the chat template does not mark the assistant's answers", model, fix)


def mark_answers(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer's template with marks if it is ChatML, and otherwise unchanged.

    TRL knows the templates of Phi-3 and marks them during training.

    Args:
        tokenizer: tokenizer with a chat template.
    """
    template = str(tokenizer.chat_template)
    if GENERATION in template.replace("{%-", "{%"):
        return template
    marked = chatml_template(tokenizer)
    return (
        marked if render_cases(tokenizer, marked) == render_cases(tokenizer, template) else template
    )


def chatml_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ChatML's template with marks and with the default system message of the tokenizer's."""
    messages = [{"role": "user", "content": "user"}]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    if default := CHATML_DEFAULT.match(rendered):
        text = json.dumps(default[0])
        first = "{% if loop.first and message['role'] != 'system' %}{{ " + text + " }}{% endif %}"
    else:
        first = ""
    return "{% for message in messages %}" + first + CHATML_MESSAGES


def render_cases(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """Render one conversation of each kind: with and without system message, tools and more turns."""
    one_turn = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    empty_system = [{"role": "system", "content": ""}, *one_turn[1:]]
    two_turns = [*one_turn, *one_turn[1:]]
    with_tools = [{**one_turn[0], "tools": "[]"}, *one_turn[1:]]
    cases = [
        (with_tools, False),
        (one_turn[1:], False),
        (one_turn, False),
        (empty_system, False),
        (two_turns, False),
        (one_turn[:2], True),
        (two_turns[:-1], True),
    ]
    return [
        str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt, chat_template=template
            )
        )
        for messages, prompt in cases
    ]


def mask_tokens(
    tokenizer: PreTrainedTokenizerBase, row: Row, template: str
) -> list[tuple[int, bool]]:
    """Return a conversation's tokens, each with whether it is trained on."""

    encoded = tokenizer.apply_chat_template(
        row["messages"],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    mask = map(bool, encoded["assistant_masks"])
    return list(zip(encoded["input_ids"], mask))


def check_mask(tokenizer: PreTrainedTokenizerBase, row: Row, template: str, model: str) -> None:
    """Check that exactly the answers and their end tokens are trained on.

    Args:
        tokenizer: tokenizer of the model.
        row: conversation to check.
        template: chat template with marks.
        model: the model's name, for the error.

    Raises:
        TrainError: other tokens are trained on, or some of these are not.
    """
    answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    trained = [text for text, is_trained in mask_spans(tokenizer, row, template) if is_trained]
    if len(answers) == len(trained) and all(map(_is_answer_with_end, answers, trained)):
        return
    fix = "correct its chat template; --show-mask prints the tokens to train on"
    problem = "the tokens to train on are not exactly the answers and their end tokens"
    raise TrainError(problem, model, fix)


def _is_answer_with_end(answer: str, text: str) -> bool:
    # Some tokenizers add or drop a space at either end.
    return text.strip().startswith(answer.strip()) and text.strip() != answer


def mask_spans(
    tokenizer: PreTrainedTokenizerBase, row: Row, template: str
) -> Iterator[tuple[str, bool]]:
    """Yield a conversation's text in spans, each with whether it is trained on."""
    masked = mask_tokens(tokenizer, row, template)
    for is_trained, group in groupby(masked, key=lambda pair: pair[1]):
        yield tokenizer.decode([token for token, _ in group]), is_trained


def format_mask(tokenizer: PreTrainedTokenizerBase, row: Row, template: str) -> str:
    """Return one line per token: its number, `train` or `-`, and its text."""
    return "\n".join(
        f"{number:5} {'train' if is_trained else '-':5} {tokenizer.decode([token])!r}"
        for number, (token, is_trained) in enumerate(mask_tokens(tokenizer, row, template))
    )
