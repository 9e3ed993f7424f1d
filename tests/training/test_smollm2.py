"""The real model: SmolLM2 as a Phi-3 computes what the original Llama computes, to the last bit."""

from __future__ import annotations

import json

import pytest

from phi3_ops.models.catalog import SHORT_NAMES
from phi3_ops.models.wheel import model_file

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
QUESTIONS = ("What is the capital of France?", "Count from 1 to 12.", "日本の首都はどこですか。")


@pytest.fixture(scope="module")
def gguf_folder(tmp_path_factory):
    """A folder with the original GGUF file."""
    with model_file(SHORT_NAMES["smollm2"], tmp_path_factory.mktemp("wheel") / "work") as file:
        yield file.parent


@pytest.fixture(scope="module")
def original(gguf_folder):
    import torch
    from transformers import AutoModelForCausalLM

    file = SHORT_NAMES["smollm2"].file
    return AutoModelForCausalLM.from_pretrained(
        gguf_folder, gguf_file=file, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def converted(smollm2_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype="auto").eval()


@pytest.fixture(scope="module")
def tokenizer(smollm2_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_folder)


def test_logits_and_answers_are_those_of_the_llama(original, converted, tokenizer):
    import torch

    assert type(original).__name__ == "LlamaForCausalLM"
    assert type(converted).__name__ == "Phi3ForCausalLM"
    for question in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            difference = original(**inputs).logits - converted(**inputs).logits
            assert float(difference.abs().max()) == 0.0
            answers = [
                model.generate(**inputs, max_new_tokens=40, do_sample=False)
                for model in (original, converted)
            ]
        assert torch.equal(*answers)


def test_the_template_gives_the_ids_of_the_original(gguf_folder, tokenizer):
    from transformers import AutoTokenizer

    file = SHORT_NAMES["smollm2"].file
    template = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=file).chat_template
    assert "generation %}" in tokenizer.chat_template and "generation %}" not in template
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two.\n\n3 "},
        {"role": "user", "content": "Four?"},
    ]
    for messages in (turns, turns[1:], turns[:3], turns[1:2]):
        for prompt in (False, True):
            own, others = (
                tokenizer.apply_chat_template(
                    messages, add_generation_prompt=prompt, chat_template=chosen
                )["input_ids"]
                for chosen in (None, template)
            )
            assert own == others


def test_it_answers_and_stops(converted, tokenizer, smollm2_folder):
    settings = json.loads((smollm2_folder / "generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
    assert tokenizer.model_max_length == 8192
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = converted.generate(**inputs, max_new_tokens=60, do_sample=False)[0]
    answer = tokenizer.decode(ids[inputs["input_ids"].shape[1] :])
    assert "Paris" in answer and answer.endswith("<|im_end|>")
