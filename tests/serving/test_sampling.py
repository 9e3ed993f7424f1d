"""How the next token is chosen: sampling, penalties, biases, and log probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import GenerationParams, Sampler, draw_token, token_logprobs


def sampler(tokens=(65, 66), index=0, **params):
    return Sampler(GenerationParams(**params), list(tokens), index)


def float32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("params", "needed"),
    [
        ({}, False),
        ({"top_p": 0.5, "top_k": 3}, False),
        ({"do_sample": True}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"frequency_penalty": 0.1}, True),
        ({"presence_penalty": -0.1}, True),
        ({"logit_bias": {1: 2.0}}, True),
        ({"logprobs": 0}, True),
    ],
)
def test_logits_are_read_only_if_they_are_needed(params, needed):
    assert sampler(**params).needs_logits == needed


def test_the_seed_and_the_index_determine_what_is_sampled():
    logits = np.zeros(1000, np.float32)

    def sampled(seed, index):
        chosen = sampler(do_sample=True, seed=seed, index=index)
        return [chosen.choose(logits) for _ in range(5)]

    assert sampled(1, 0) == sampled(1, 0)
    assert sampled(1, 0) != sampled(1, 1)
    assert sampled(1, 0) != sampled(2, 0)
    assert len(set(sampled(-1, 0))) > 1  # a negative seed is valid, too


@pytest.mark.parametrize("temperature", [0.01, 1e-6, 1e-320])
def test_a_low_temperature_samples_the_most_likely_token(temperature):
    assert sampler(do_sample=True, temperature=temperature).choose(float32(0, 5, 1)) == 1


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 99, 0])
def test_top_k_limits_the_tokens_that_are_sampled(top_k):
    logits = float32(0.1, 0.4, 0.2, 0.3)
    chosen = sampler(do_sample=True, top_k=top_k, seed=0)
    expected = [1, 3, 2, 0][: top_k or None]
    assert {chosen.choose(logits) for _ in range(200)} == set(expected)


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(0).normal(0, 5, 20).astype(np.float32)
    tokens = [3, 3, 7, 19, 0]
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(torch.tensor([tokens]), torch.tensor(logits)[None])[0].numpy()
    adjusted = sampler(tokens, repetition_penalty=penalty)._adjust(logits)
    np.testing.assert_allclose(adjusted, expected, rtol=1e-6)


def test_frequency_and_presence_count_the_tokens_of_the_answer_only():
    tokens = [0, 1]
    chosen = Sampler(GenerationParams(frequency_penalty=0.5, presence_penalty=1.0), tokens, 0)
    logits = float32(4, 4, 4, 4)
    assert chosen._adjust(logits).tolist() == [4, 4, 4, 4]
    tokens += [1, 2, 2]
    assert chosen._adjust(logits).tolist() == [4, 2.5, 2, 4]
    assert logits.tolist() == [4, 4, 4, 4]  # the backend's own memory is not changed


def test_penalties_and_biases_change_greedy_answers():
    assert sampler(logit_bias={2: 5.0, 0: -100.0}).choose(float32(9, 5, 1)) == 2
    assert sampler([1], repetition_penalty=2.0).choose(float32(4, 5, 1)) == 0


@pytest.mark.parametrize("alternatives", [0, 2, 9])
def test_log_probabilities_are_those_of_the_model(alternatives):
    logits = float32(1, 3, 2)
    expected = logits - np.log(np.exp(logits.astype(float)).sum())
    entry = token_logprobs(logits, 2, alternatives)
    assert entry.logprob == pytest.approx(expected[2])
    assert [token for token, _ in entry.top] == [1, 2, 0][:alternatives]
    assert [value for _, value in entry.top] == pytest.approx(sorted(expected)[::-1][:alternatives])


def test_log_probabilities_do_not_depend_on_biases_and_temperature():
    logits = float32(1, 3, 2)
    chosen = sampler(do_sample=True, temperature=0.01, logit_bias={0: 100.0}, logprobs=1)
    assert chosen.choose(logits) == 0
    assert chosen.logprobs == [token_logprobs(logits, 0, 1)]


def test_params_default_to_greedy():
    assert not GenerationParams().do_sample
    assert not sampler().needs_logits


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=30),
    st.floats(0.05, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_is_drawn_from_the_most_likely_tokens_that_reach_top_p(weights, top_p, point):
    probabilities = np.array(weights, np.float64) / sum(weights)
    order = np.argsort(-probabilities, kind="stable")
    nucleus, total = [], 0.0
    for token in order:
        nucleus.append(token)
        total += probabilities[token]
        if total >= top_p - 1e-12:
            break
    drawn = draw_token(probabilities, top_p, point)
    assert drawn in nucleus
    before = sum(probabilities[t] for t in nucleus[: nucleus.index(drawn)])
    assert before - 1e-9 <= point * total <= before + probabilities[drawn] + 1e-9
