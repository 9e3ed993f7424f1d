"""Chat templates in pieces."""

from __future__ import annotations

import jinja2
import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home.chat_pieces import plain_template, split_template
from tiny_gguf import SMOLLM2_TEMPLATE
from tiny_model import CHAT_TEMPLATE

PHI4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Tokenizer:
    """A tokenizer that renders its chat template, as transformers does."""

    def __init__(self, template):
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(template)

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        return self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, eos_token="<|end|>"
        )


def split(template):
    return split_template(Tokenizer(template), ["<|end|>", "<|im_end|>"], "Ollama")


def test_phi3():
    pieces = split(CHAT_TEMPLATE)
    assert pieces.pieces["user"].around("Hi") == "<|user|>\nHi<|end|>\n"
    assert pieces.pieces["system"].around("Hi") == "<|system|>\nHi<|end|>\n"
    assert pieces.answer_start == "<|assistant|>\n"
    assert pieces.start == pieces.default_system == ""


def test_phi4_mini_has_no_line_breaks():
    assert split(PHI4_MINI).pieces["assistant"].around("Hi") == "<|assistant|>Hi<|end|>"


def test_a_default_system_message():
    pieces = split(SMOLLM2_TEMPLATE)
    assert pieces.default_system.startswith("You are a helpful AI assistant named SmolLM")
    assert pieces.pieces["system"].before == "<|im_start|>system\n"


def test_a_text_before_the_first_message():
    pieces = split("<s>" + PHI4_MINI)
    assert pieces.start == "<s>" and pieces.pieces["system"].before == "<|system|>"


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE.replace("message['content']", "message['content'] | upper"),
        CHAT_TEMPLATE.replace("message['content']", "(message['content'] + loop.index | string)"),
        "{{ raise_exception('no') }}",
        "{{ 1 // 0 }}",
        "",
    ],
)
def test_templates_that_cannot_be_written_in_pieces(template):
    with pytest.raises(OpsError, match="cannot be written as Ollama's"):
        split(template)


@pytest.mark.parametrize("dash", ["", "-"])
def test_marks_around_answers_are_replaced(dash):
    marked = "a {%" + dash + " generation %} b {% endgeneration " + dash + "%} c"
    plain = plain_template(marked)
    assert "generation" not in plain
    spaces = " " if not dash else ""
    assert jinja2.Template(plain).render() == f"a{spaces} b {spaces}c"
