"""TRL's settings: the shipped recipes are accepted, and a wrong setting is named."""

import pytest
from inputs import TrainError, read_recipe
from sft_config import describe_batch, make_config
from training_run import TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("path", sorted(TINY_RECIPE.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_trl_accepts_the_shipped_recipes(tmp_path, path):
    config = make_config(read_recipe(path), "cpu", tmp_path, path)
    assert getattr(config, "assistant_only_loss", True) and not config.bf16 and config.use_cpu


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("{learning_rat: 1.0e-3}", "learning_rat"),
        ("{eval_strategy: sometimes}", "sometimes"),
    ],
)
def test_a_setting_that_trl_refuses_is_named(tmp_path, settings, problem):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: a/b\ntrainer: {settings}\n")
    with pytest.raises(TrainError, match=f"`trainer` is wrong .*{problem}.*, {path}: see "):
        make_config(read_recipe(path), "cpu", tmp_path, path)


def test_the_batch_is_described_with_its_factors(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: a/b\ntrainer: {per_device_train_batch_size: 2, gradient_accumulation_steps: 8}\n"
    )
    config = make_config(read_recipe(path), "cpu", tmp_path, path)
    assert describe_batch(config) == "16 per step (batch 2 x accumulation 8 x processes 1)"
