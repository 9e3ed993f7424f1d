"""The sections about the hub, the trackers and the mixture: a wrong one is refused by its name."""

import pytest
from recipe_checks import find_problem

TINY_SECTIONS = {"vocab_size": 300, "hidden_size": 8, "max_position_embeddings": 8}
STREAMED = {"streaming": {"shuffle_buffer": 100}, "trainer": {"max_steps": 10}}


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"revision": 7}, "the recipe's 'revision' is not text"),
        ({"report_to": "wandb"}, "the recipe's 'report_to' is not a list"),
        ({"report_to": ["neptune"]}, "the recipe's report_to has 'neptune', and may have mlflow, "),
        ({"report_to": ["wandb", "wandb"]}, "the recipe's report_to has a name twice"),
        ({"push_to_hub": True}, "the recipe has `push_to_hub` without `hub_model_id`"),
        ({"hub_model_id": "a/b"}, "the recipe has `hub_model_id` without `push_to_hub: true`"),
        ({"hub_private": False}, "the recipe has `hub_private` without `push_to_hub: true`"),
        (
            {"push_to_hub": True, "hub_model_id": "b"},
            "the recipe's hub_model_id is not owner/name",
        ),
        ({"mixture": {"a": 1, "b": 0}}, "the recipe's mixture.b is not a number above 0"),
        ({"mixture": {"a": 1, "b": True}}, "the recipe's mixture.b is not a number above 0"),
        ({"mixture": {"a": 1}}, "the recipe's mixture has fewer than two files"),
        ({"streaming": True}, "the recipe's 'streaming' is not a mapping"),
        ({"streaming": {}}, "the recipe's streaming needs shuffle_buffer, and no other setting"),
        ({"streaming": {"shuffle_buffer": 0}}, "the recipe's streaming.shuffle_buffer is not an"),
        (STREAMED | {"trainer": {}}, "the recipe has `streaming` without `trainer.max_steps`"),
        (
            STREAMED | {"trainer": {"max_steps": 1, "packing": True}},
            "the recipe has `streaming` with trainer.packing (packed sequences would be in the order",
        ),
        (
            STREAMED | {"method": "dpo", "lora": {}},
            "the recipe has `streaming` with `method: dpo`, which reads the rows into memory",
        ),
        (
            {"model": "tiny", "tiny": TINY_SECTIONS, "use_kernels": True},
            "the recipe has `use_kernels`, which the tiny model does not use",
        ),
    ],
)
def test_a_wrong_section_is_refused(sections, problem):
    assert str(find_problem({"model": "a/b", **sections})).startswith(problem)


def test_valid_sections_are_accepted():
    sections = {
        "revision": "v1",
        "report_to": ["mlflow", "trackio", "wandb", "tensorboard"],
        "push_to_hub": True,
        "hub_model_id": "me/mine",
        "hub_private": False,
        "use_kernels": True,
        "mixture": {"a.jsonl": 0.7, "b.jsonl": 3},
        **STREAMED,
    }
    assert find_problem({"model": "a/b", **sections}) is None
