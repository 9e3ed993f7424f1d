"""Tokens per second, MFU and memory."""

import machines
import pytest
import speed
from training_run import ROWS, TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA RTX A1000 Laptop GPU", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA A10-4Q", None),
        ("another card", None),
        ("", None),
    ],
)
def test_the_peak_is_that_of_the_card(card, peak):
    assert speed.peak_flops(card) == peak


def test_every_card_of_the_estimates_has_a_peak():
    assert all(speed.peak_flops(card) for card in machines.CARDS)


@pytest.fixture
def model():
    import models
    from inputs import read_recipe

    return models.make_tiny(read_recipe(TINY_RECIPE), ROWS, TINY_RECIPE)[0]


def test_a_weight_takes_six_operations_if_all_are_trained(model):
    assert model.config.tie_word_embeddings
    assert speed.flops_per_token(model) == 6 * model.num_parameters()


def test_weights_before_the_first_trained_one_take_two(model):
    model.requires_grad_(False)
    assert speed.flops_per_token(model) == 2 * model.num_parameters()
    model.model.norm.weight.requires_grad_(True)
    norm, head = model.model.norm.weight.numel(), model.lm_head.weight.numel()
    # The norm has its gradient. That of the head's input reaches it.
    expected = 2 * model.num_parameters() + 4 * norm + 2 * head
    assert speed.flops_per_token(model) == expected


def test_adapters_need_the_gradients_of_the_inputs_but_not_of_the_base(model):
    import adapters
    from inputs import Recipe
    from peft import get_peft_model

    parameters = model.num_parameters()
    adapted = get_peft_model(model, adapters.make_lora(Recipe("r", "x", lora={"r": 4})))
    assert 4 * parameters <= speed.flops_per_token(adapted) < 4.5 * parameters


def test_evaluations_between_the_steps_do_not_count(model, monkeypatch):
    clock = iter([0.0, 2.0, 100.0, 102.0])
    monkeypatch.setattr(speed.time, "monotonic", lambda: next(clock))
    measured = speed.Speed(model, processes=2)
    assert measured.measure(0) == {}
    for _ in range(2):
        measured.on_step_begin(None, None, None)
        measured.on_step_end(None, None, None)
    monkeypatch.setattr(measured, "_peak", 1e9)
    figures = measured.measure(400)
    assert figures["tokens_per_second"] == 100
    assert figures["mfu"] == pytest.approx(100 * 6 * model.num_parameters() / 2e9, abs=1e-4)
    assert 0.05 < figures["memory_gb"] < 100
    assert measured.measure(400) == {}
