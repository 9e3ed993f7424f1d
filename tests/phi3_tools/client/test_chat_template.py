"""The chat template in a model's folder renders as with transformers, or is not used."""

from __future__ import annotations

import json
import sys

import pytest

from phi3_tools.client.chat_template import read_chat_template
from phi3_tools.client.messages import fit, tokenizer_counter

CHAT = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "  Bill {{ and }} Paul."},
    {"role": "user", "content": "When? 🙂"},
]
# As in ChatML models: marks for training, a default system message, the start of the answer.
CHATML = """
{%- if messages[0].role != "system" %}{{ bos_token }}system
You are kind.<|end|>
{% endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}{{ raise_exception("no tools") }}{% endif %}
    {%- if message.content == "skipped" %}{% continue %}{% endif %}
    {{- "<|start|>" + message.role + "\n" }}
    {%- if message.role == "assistant" %}
        {%- generation -%} {{ message.content + "<|end|>" }} {%- endgeneration -%}
    {%- else %}{{ message.content + "<|end|>" }}{% endif %}
    {{- "\n" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|start|>assistant\n" }}{% endif %}"""


def write_template(folder, template=CHATML, **config):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", **config}))
    return folder


@pytest.mark.parametrize("chat", [CHAT, [{"role": "system", "content": "Be brief."}, *CHAT]])
def test_a_chat_is_rendered_as_with_transformers(tmp_path, chat):
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        conversations=[chat], chat_template=CHATML, add_generation_prompt=True, bos_token="<s>"
    )
    assert read_chat_template(write_template(tmp_path))(chat) == rendered[0]


def test_a_template_in_the_tokenizers_configuration_is_read(tmp_path):
    config = {"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_chat_template(tmp_path)(CHAT) == "Who?</s>"


@pytest.mark.parametrize("template", ["{% for %}", "{{ messages", "{% unknown %}"])
def test_a_broken_template_is_not_used(tmp_path, template):
    assert read_chat_template(write_template(tmp_path, template)) is None


def test_a_folder_without_a_template_has_none(tmp_path):
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("[]")
    assert read_chat_template(tmp_path) is None


def test_without_jinja_no_template_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert read_chat_template(write_template(tmp_path)) is None


def test_a_template_has_no_access_to_python(tmp_path):
    render = read_chat_template(write_template(tmp_path, "{{ messages.__class__.__mro__ }}"))
    with pytest.raises(Exception, match="unsafe"):
        render(CHAT)


# -- counts ----------------------------------------------------------------------------------------


@pytest.fixture
def counter(tiny_model_dir, tmp_path):
    """A counter with the tiny model's tokenizer and the template above."""
    (tmp_path / "tokenizer.json").write_bytes((tiny_model_dir / "tokenizer.json").read_bytes())
    write_template(tmp_path)
    return tokenizer_counter(str(tmp_path / "tokenizer.json"))


def test_the_default_system_message_of_a_template_is_counted(counter):
    system = {"role": "system", "content": "You are kind."}
    texts = sum(counter.most(message["content"]) for message in CHAT)
    assert counter.most_of(CHAT) == counter.least_of(CHAT) > texts + counter.most(system["content"])


def test_a_chat_is_fitted_to_the_exact_token(counter):
    room = counter.most_of(CHAT)
    for window, kept in ((room, CHAT), (room - 1, CHAT[2:])):
        assert fit(CHAT, context_window=window, max_new_tokens=0, counter=counter) == kept


def test_a_chat_that_the_template_refuses_is_estimated(counter):
    refused = [{"role": "tool", "content": "x"}]
    assert counter.exact(refused) is None
    assert counter.most_of(refused) > counter.most("x")
