"""An exported SmolLM2 in llama.cpp and in ONNX Runtime GenAI answers as it does in transformers."""

from __future__ import annotations

import json

import pytest

from phi3_ops.take_home.export import export_model
from phi3_ops.take_home.llama_server import llama_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TOKENS = 32
# llama.cpp computes with float16 keys, values and weights: where the two best logits differ by less than
# this, it may choose another token than transformers in float32.
TIE = 0.05
MAX_TIES = 2
END_TOKEN = 2


@pytest.fixture(scope="module")
def prompt_ids(tokenizer, prompts):
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


@pytest.fixture(scope="module")
def model(smollm2_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype="float16").float().eval()


@pytest.fixture(scope="module")
def expected(model, tokenizer, prompt_ids):
    """The tokens of transformers' answers, with the weights in float16."""
    batch = tokenizer.pad({"input_ids": prompt_ids}, return_tensors="pt")
    answers = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
    return [without_end(row) for row in answers[:, batch["input_ids"].shape[1] :].tolist()]


def without_end(tokens):
    return tokens[: tokens.index(END_TOKEN)] if END_TOKEN in tokens else tokens


def test_f16_answers_like_transformers(
    smollm2_folder, tmp_path, model, prompt_ids, expected, prompts
):
    exported = export_model(str(smollm2_folder), "gguf", ["f16"], tmp_path / "gguf")
    with llama_server(exported.folder / exported.files[0].name, tokens=512) as server:
        actual, texts = [], []
        for ids, prompt in zip(prompt_ids, prompts):
            request = {"n_predict": TOKENS, "temperature": 0, "return_tokens": True}
            answer = server.post("/completion", {"prompt": ids, "cache_prompt": False, **request})
            actual.append(without_end(answer["tokens"]))
            chat = {"messages": [{"role": "user", "content": prompt}], "temperature": 0}
            reply = server.post("/v1/chat/completions", {**chat, "max_tokens": TOKENS})
            texts.append((answer["content"], reply["choices"][0]["message"]["content"]))
    assert all(raw == chat for raw, chat in texts)  # the chat template is the same
    gaps = [
        gap(model, ids, first, second)
        for ids, first, second in zip(prompt_ids, expected, actual)
        if first != second
    ]
    print(f"{len(gaps)} of {len(actual)} answers differ; gaps of the logits: {gaps}")
    assert len(gaps) <= MAX_TIES and all(difference < TIE for difference in gaps), gaps


def gap(model, prompt, first, second):
    """Return by how much the logits of two answers' first different tokens differ."""
    import torch

    pairs = list(zip([*first, END_TOKEN], [*second, END_TOKEN]))
    step = next(index for index, (one, other) in enumerate(pairs) if one != other)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + first[:step]])).logits[0, -1]
    one, other = pairs[step]
    return abs(float(logits[one] - logits[other]))


def test_foundry_local_takes_the_folder(smollm2_folder, tmp_path, tokenizer, prompts):
    """ONNX Runtime GenAI, on which Foundry Local is built, loads it, and the template is the same."""
    import onnxruntime_genai as og

    exported = export_model(str(smollm2_folder), "foundry-local", [], tmp_path / "onnx")
    document = json.loads((exported.folder / "inference_model.json").read_text())
    assert document["Name"] == "SmolLM2-135M-Instruct"
    assert document["PromptTemplate"]["prompt"].endswith("<|im_end|>\n<|im_start|>assistant")
    model = og.Model(str(exported.folder))
    onnx_tokenizer = og.Tokenizer(model)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = onnx_tokenizer.apply_chat_template(
        messages=json.dumps(messages), add_generation_prompt=True
    )
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == expected
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=256, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(onnx_tokenizer.encode(prompt))
    start = generator.token_count()
    while not generator.is_done() and generator.token_count() < start + TOKENS:
        generator.generate_next_token()
    assert "Paris" in onnx_tokenizer.decode(generator.get_sequence(0)[start:])
