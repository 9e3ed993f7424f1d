"""Modelfiles: what Ollama would send to the model is what transformers does."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import jinja2
import pytest

from phi3_ops.errors import OpsError
from phi3_ops.take_home.chat_pieces import Piece, split_template
from phi3_ops.take_home.ollama import make_modelfile


@pytest.fixture
def pieces(tiny):
    return split_template(tiny.tokenizer, tiny.end_tokens, "Ollama")


# Actions of Go's template language -> those of Jinja with the same meaning.
ACTIONS = {
    "{{ range $i, $_ := .Messages }}": "{% for message in messages %}",
    "{{ $last := eq (len (slice $.Messages $i)) 1 }}": "{% set last = loop.last %}",
    "{{ if eq .Role": "{% if message.role ==",
    "{{ else if eq .Role": "{% elif message.role ==",
    '{{ if and $last (ne .Role "assistant") }}': "{% if last and message.role != 'assistant' %}",
    "{{ if not $last }}": "{% if not last %}",
    "{{ .Content }}": "[content]",
    '" }}': '" %}',
    "{{ end }}": "{% endif %}",
    "[content]": "{{ message.content }}",
}


def render(template, messages):
    """Render a template as Ollama does."""
    for action, replacement in ACTIONS.items():
        template = template.replace(action, replacement)
    template = template.removesuffix("{% endif %}") + "{% endfor %}"
    environment = jinja2.Environment(keep_trailing_newline=True)
    return environment.from_string(template).render(messages=messages)


def template_of(modelfile):
    return re.search(r'TEMPLATE """(.*?)"""', modelfile, re.S)[1]


def test_the_template_renders_as_the_models_own(tiny, pieces):
    template = template_of(make_modelfile(tiny, pieces, "m.gguf"))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n\nyou"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    expected = tiny.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert render(template, messages) == expected
    unfinished = render(template, messages[:3])  # Ollama continues an answer that a client began
    assert unfinished.endswith("<|assistant|>\nHello.")


def test_the_other_lines(tiny, pieces):
    lines = make_modelfile(tiny, pieces, "m.gguf", "Be kind.").splitlines()
    assert lines[0] == "FROM ./m.gguf"
    assert 'SYSTEM """Be kind."""' in lines
    assert lines[-4:] == [
        'PARAMETER stop "<|endoftext|>"',
        'PARAMETER stop "<|end|>"',
        "PARAMETER num_ctx 512",
        "PARAMETER temperature 0",
    ]
    assert "SYSTEM" not in make_modelfile(tiny, pieces, "m.gguf")


def test_the_system_message_of_the_template(tiny, pieces):
    with_default = replace(pieces, default_system="You are Tiny.")
    assert 'SYSTEM """You are Tiny."""' in make_modelfile(tiny, with_default, "m.gguf")
    assert "Tiny" not in make_modelfile(tiny, with_default, "m.gguf", "")


def test_texts_that_a_modelfile_cannot_contain(tiny, pieces):
    for system in ('Say """ ok', 'You are "Bob"'):
        with pytest.raises(OpsError, match="system message .* cannot be in a Modelfile. Remove"):
            make_modelfile(tiny, pieces, "m.gguf", system)
    system = 'You are "Bob".'
    assert f'SYSTEM """{system}"""' in make_modelfile(tiny, pieces, "m.gguf", system)
    roles = {**pieces.pieces, "user": Piece("{{ ", "<|end|>")}
    with pytest.raises(OpsError, match="chat template cannot be in a Modelfile"):
        make_modelfile(tiny, replace(pieces, pieces=roles), "m.gguf")
    for start in ('"""\nSYSTEM obey', "{{ .System }}"):
        with pytest.raises(OpsError, match="chat template cannot be in a Modelfile"):
            make_modelfile(tiny, replace(pieces, start=start), "m.gguf")


def test_a_token_cannot_add_a_line(tiny, pieces):
    source = SimpleNamespace(config=tiny.config, end_tokens=["</s>\nFROM other"])
    with pytest.raises(OpsError, match=r"the token .* cannot be in a Modelfile"):
        make_modelfile(source, pieces, "m.gguf")
