"""Greedy answers are equal across transformers, OpenVINO and llama.cpp.

llama.cpp reads the original file (as float32), so it is independent of the conversion into a Phi-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TOKENS = 32
# Engines add the same numbers in different orders. Where the two best logits differ by less than this,
# two engines may choose different tokens. The rest of such an answer is not compared.
TIE = 2e-3
MAX_TIES = 1


@pytest.fixture(scope="module")
def prompt_ids(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    """The token ids of each prompt in the chat template."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]


@pytest.fixture(scope="module")
def model(smollm2_folder: Any) -> Any:
    """The model in transformers, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype="float32").eval()


@pytest.fixture(scope="module")
def expected(model: Any, tokenizer: Any, prompt_ids: list[list[int]]) -> list[list[int]]:
    """The tokens of transformers' answers, without the end token."""
    batch = tokenizer.pad({"input_ids": prompt_ids}, return_tensors="pt")
    answers = model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)
    new_tokens = answers[:, batch["input_ids"].shape[1] :].tolist()
    return [_without_end(tokens, tokenizer.eos_token_id) for tokens in new_tokens]


@pytest.fixture(scope="module")
def llama_cpp(smollm2_gguf: Any) -> Iterator[Any]:
    """llama.cpp with the original model's weights as float32, and with float32 keys and values."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_gguf)
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.n_ctx = 512
    params.verbosity = 0
    params.warmup = False
    yield xllamacpp.Server(params)


def test_a_prompt_is_encoded_as_by_transformers(engine, prompts, prompt_ids):
    encoded = [engine.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    assert encoded == prompt_ids


def test_openvino_answers_like_transformers(engine, model, tokenizer, prompt_ids, expected):
    from sampling import GenerationParams

    # Log probabilities make the sampler choose the tokens; without them, the backend does.
    params = [GenerationParams(max_new_tokens=TOKENS, logprobs=count) for count in (0, None)]
    answers, same_answers = (engine.generate(prompt_ids, each) for each in params)
    actual = [[entry.token for entry in answer.logprobs] for answer in answers]
    texts = tokenizer.batch_decode(actual)
    assert [answer.text for answer in answers] == texts
    assert [answer.text for answer in same_answers] == texts
    assert_equal_but_for_ties(model, prompt_ids, expected, actual)


def test_llama_cpp_answers_like_transformers(llama_cpp, model, tokenizer, prompt_ids, expected):
    actual = [_complete(llama_cpp, ids, tokenizer.eos_token_id) for ids in prompt_ids]
    assert_equal_but_for_ties(model, prompt_ids, expected, actual)


def _complete(server: Any, ids: list[int], end_token: int) -> list[int]:
    request = {"prompt": ids, "n_predict": TOKENS, "temperature": 0, "return_tokens": True}
    response = requests.post(
        f"{server.listening_address}/completion",
        json={**request, "cache_prompt": False},
        timeout=300,
    )
    assert response.status_code == 200, response.text
    return _without_end(response.json()["tokens"], end_token)


def _without_end(tokens: list[int], end_token: int) -> list[int]:
    return tokens[: tokens.index(end_token)] if end_token in tokens else tokens


def assert_equal_but_for_ties(
    model: Any,
    prompts: Sequence[list[int]],
    expected: Sequence[list[int]],
    actual: Sequence[list[int]],
) -> None:
    """Assert that answers are equal, except for at most MAX_TIES that differ by a tie of two logits."""
    assert len(expected) == len(actual)
    gaps = [
        _gap(model, prompt, first, second)
        for prompt, first, second in zip(prompts, expected, actual)
        if first != second
    ]
    print("logit gaps of the answers that differ:", gaps)
    assert all(gap < TIE for gap in gaps), gaps
    assert len(gaps) <= MAX_TIES, gaps


def _gap(model: Any, prompt: list[int], first: list[int], second: list[int]) -> float:
    """Return by how much the logits of two answers' first different tokens differ."""
    import torch

    end = model.config.eos_token_id
    pairs = zip([*first, end], [*second, end])
    step = next(index for index, (one, other) in enumerate(pairs) if one != other)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + first[:step]])).logits[0, -1]
    one, other = ([*tokens, end][step] for tokens in (first, second))
    return abs(float(logits[one] - logits[other]))


def test_an_answer_of_another_model_is_noticed(model, prompt_ids, expected):
    """This shows that the tests above can fail."""
    wrong = [tokens[:5] + [tokens[5] + 1] + tokens[6:] for tokens in expected[:2]]
    with pytest.raises(AssertionError):
        assert_equal_but_for_ties(model, prompt_ids[:2], expected[:2], wrong)
