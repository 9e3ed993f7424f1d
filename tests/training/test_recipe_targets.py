"""The sections about the hub, the trackers and the mixture: a wrong one is refused by its name."""

import pytest
from recipe_checks import find_problem

TINY_SECTIONS = {"vocab_size": 300, "hidden_size": 8, "max_position_embeddings": 8}


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
        ({"streaming": True}, "`streaming` cannot be in a recipe (the rows are read into memory"),
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
    }
    assert find_problem({"model": "a/b", **sections}) is None
