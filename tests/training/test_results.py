"""The result of a run: which model its figures describe."""

from dataclasses import replace

import pytest
from inputs import Recipe, read_recipe
from training_run import TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("settings", "device", "weights"),
    [
        ({}, "cpu", "saved"),
        ({"save_dtype": "float32"}, "cuda", "saved"),
        ({"save_dtype": "bfloat16"}, "cpu", "unrounded"),
        ({"lora": {}}, "cpu", "saved"),
        ({"lora": {}}, "cuda", "unrounded"),
        ({"lora": {}, "merge": False, "save_dtype": "bfloat16"}, "cuda", "saved"),
        ({"lora": {}, "quantization": "nf4", "save_dtype": "bfloat16"}, "cuda", "quantized"),
    ],
)
def test_the_metrics_name_the_weights_that_were_measured(settings, device, weights):
    import results

    assert results.measured_weights(Recipe("r", "base", **settings), device) == weights


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({}, None),
        ({"measured_weights": "unrounded"}, "`bfloat16`.\nThe saved model was not measured.\n"),
        (
            {"measured_weights": "unrounded", "saved_eval_loss": 1.23456},
            "`bfloat16`.\nThe evaluation loss of the saved model is 1.2346.\n",
        ),
        ({"measured_weights": "quantized"}, "without quantization. It was not measured.\n"),
    ],
)
def test_the_card_says_what_was_measured(tmp_path, metrics, text):
    import card
    from test_card import METRICS

    recipe = replace(read_recipe(TINY_RECIPE), save_dtype="bfloat16")
    rows = tmp_path / "rows.jsonl"
    card.write(tmp_path, recipe=recipe, metrics=replace(METRICS, **metrics), train_file=rows)
    written = (tmp_path / "README.md").read_text("utf-8")
    note = "All figures and answers of this card"
    assert (note in written) == (text is not None)
    assert text is None or text in written.partition("## Results")[2].partition("## Data")[0]
