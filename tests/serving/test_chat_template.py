"""Chat templates: ours renders and encodes what transformers' `apply_chat_template` does."""

from __future__ import annotations

import datetime
import importlib.util
import json
from pathlib import Path

import pytest
from chat_encoder import ChatEncoder
from chat_template import ChatTemplate, ChatTemplateError
from jinja2 import TemplateError
from transformers.utils import chat_template_utils

# TRL comes with the templates of many models, as files.
TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0]) / "chat_templates"
PHI4_MINI = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['tools'] %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + message['tools'] + '<|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LOOP_CONTROLS = (
    "{%- for message in messages[::-1] -%}\n"
    "  {%- if message.role == 'system' %}{% continue %}{% endif -%}\n"
    "{{ '<|' ~ message.role ~ '|>\n' ~ message.content }}{% if loop.index == 2 %}{% break %}{% endif %}\n"
    "{%- endfor %}{{ tools | default([], true) | tojson }}{{ messages | tojson(indent=2) }}"
    "{% generation %}{{ eos_token }}{% endgeneration %}{{ strftime_now('%A %H:%M') }}"
)
OWN_TEMPLATES = {"phi4-mini": PHI4_MINI, "smollm2": SMOLLM2, "loop controls": LOOP_CONTROLS}
TEMPLATES = OWN_TEMPLATES | {
    file.stem: file.read_text(encoding="utf-8") for file in sorted(TRL.glob("*.jinja"))
}
CHATS = {
    "question": [{"role": "user", "content": "Wer? 🙂"}],
    "system": [
        {"role": "system", "content": " Be <kind>.\n"},
        {"role": "user", "content": "'Who'?"},
    ],
    "turns": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello & welcome\n"},
        {"role": "user", "content": "{{ 1 }} {% break %}"},
    ],
    "two questions": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 2, 3, 4, 5)


@pytest.fixture
def fixed_clock(monkeypatch):
    monkeypatch.setattr(chat_template_utils, "datetime", FixedClock)


def transformers_ids(tokenizer, template, messages):
    """The token ids, or the template's error."""
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, return_dict=False
        )
    except TemplateError as error:
        return str(error)


def our_ids(encoder, messages):
    try:
        return encoder.encode(messages)
    except ChatTemplateError as error:
        return str(error)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_token_ids_are_those_of_transformers(tokenizer, fixed_clock, name):
    template = TEMPLATES[name]
    render = ChatTemplate(template, tokenizer.special_tokens_map).render
    encoder = ChatEncoder(tokenizer.backend_tokenizer.to_str(), render)
    for messages in CHATS.values():
        assert our_ids(encoder, messages) == transformers_ids(tokenizer, template, messages)


def test_the_templates_use_everything_that_transformers_offers():
    """Otherwise the test above would not show that it is supported."""
    text = "".join(TEMPLATES.values())
    for feature in (
        *("{% generation", "strftime_now", "raise_exception", "tojson", "break", "continue"),
        "namespace(",
    ):
        assert feature in text


def test_a_refusal_has_the_templates_message():
    template = ChatTemplate(
        "{{ raise_exception('roles must alternate: ' + messages[0].content) }}", {}
    )
    with pytest.raises(ChatTemplateError, match="^roles must alternate: Hi$"):
        template.render([{"role": "user", "content": "Hi"}])


def test_the_text_of_a_refusal_quotes_messages_unchanged(tokenizer):
    """The encoder has put a separator into the control tokens of the message."""
    template = ChatTemplate("{{ raise_exception(messages[0].content) }}", {})
    encoder = ChatEncoder(tokenizer.backend_tokenizer.to_str(), template.render)
    with pytest.raises(ChatTemplateError, match=r"^a <\|end\|> b$"):
        encoder.encode([{"role": "user", "content": "a <|end|> b"}])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for %}", "Expected an expression"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_template_that_is_not_valid_or_not_safe_is_refused(source, reason):
    with pytest.raises(ChatTemplateError, match=reason):
        ChatTemplate(source, {}).render([{"role": "user", "content": "Hi"}])


# --- both engines -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["openvino", "transformers"])
def strict_scorer(request, tiny_model_dir, tmp_path_factory):
    """The tiny model with a marked template that refuses two questions in a row."""
    import score

    folder = tmp_path_factory.mktemp("strict")
    for file in tiny_model_dir.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ '<|' + m.role + '|>\n' }}"
        "{% generation %}{{ m.content }}<|end|>\n{% endgeneration %}{% endfor %}<|assistant|>\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_ENGINE", request.param)
        scorer = score.load(folder)
    yield scorer
    scorer.close()


def test_a_marked_template_is_served(strict_scorer):
    answer = strict_scorer.answer({"messages": CHATS["turns"], "max_tokens": 2})
    assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("contract", ["openai", "catalog"])
def test_messages_that_a_template_refuses_are_a_400_with_its_message(strict_scorer, contract):
    from score import ScoringError

    messages = CHATS["two questions"]
    payload = {
        "openai": {"messages": messages},
        "catalog": {"input_data": {"input_string": messages}},
    }[contract]
    for call in (strict_scorer.answer, strict_scorer.stream):
        with pytest.raises(ScoringError) as caught:
            call(payload)
        assert (caught.value.status, caught.value.param) == (400, "messages")
        assert "refuses the messages: roles must alternate" in caught.value.message
        json.dumps(caught.value.body)
