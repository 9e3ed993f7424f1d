"""An exported SmolLM2 in llama.cpp and in ONNX Runtime GenAI answers as it does in transformers."""

from __future__ import annotations

import json

import pytest

from phi3_ops.take_home.export import export_model
from phi3_ops.take_home.llama_server import llama_server

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

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


def without_end(tokens):
    return tokens[: tokens.index(END_TOKEN)] if END_TOKEN in tokens else tokens


def test_f16_answers_like_transformers(
    smollm2_folder, tmp_path, model, tokenizer, prompt_ids, prompts
):
    exported = export_model(str(smollm2_folder), "gguf", ["f16"], tmp_path / "gguf")
    request = {"n_predict": TOKENS, "temperature": 0, "return_tokens": True}
    with llama_server(exported.folder / exported.files[0].name, tokens=512, threads=1) as server:
        answers = [
            without_end(server.post("/completion", {"prompt": ids, **request})["tokens"])
            for ids in prompt_ids
        ]
        chat = {"messages": [{"role": "user", "content": prompts[0]}]}
        reply = server.post(
            "/v1/chat/completions", {**chat, "temperature": 0, "max_tokens": TOKENS}
        )
    # The chat template in the file gives the same prompt.
    assert reply["choices"][0]["message"]["content"] == tokenizer.decode(answers[0])
    gaps = [gap(model, ids, answer) for ids, answer in zip(prompt_ids, answers)]
    differing = [value for value in gaps if value > 0]
    print(f"{len(differing)} of {len(gaps)} answers differ; gaps of the logits: {differing}")
    assert len(differing) <= MAX_TIES and max(gaps) < TIE, gaps


def gap(model, prompt, answer):
    """Return by how much transformers prefers another token to the answer's first other one, or 0.

    If each token of an answer is the best one after those before it, it is transformers' greedy answer.
    """
    import torch

    tokens = [*answer, END_TOKEN][:TOKENS]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    best = logits.max(-1).values
    chosen = logits[torch.arange(len(tokens)), torch.tensor(tokens)]
    differences = (best - chosen).tolist()
    return next((value for value in differences if value > 0), 0.0)


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
