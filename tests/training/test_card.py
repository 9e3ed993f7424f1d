"""The model card: what the hub reads in it, whose licence it names, and what it does not quote."""

import hashlib
import json
from dataclasses import replace

import pytest
from inputs import read_recipe
from training_run import TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")

METRICS = {
    "train_seconds": 12.3, "steps": 420, "epochs": 14, "tokens": 205772, "train_loss": 0.8423,
    "eval_loss": 1.6778, "perplexity": 5.354, "base_eval_loss": 7.2128, "base_perplexity": 1356.7,
    "train_rows": 480, "eval_rows": 120, "model": "tiny", "parameters": 568448, "device": "cpu",
    "recipe": "tiny-cpu", "versions": {"torch": "2.13.0"},
}  # fmt: skip
SAMPLES = [
    {"epoch": 0, "question": "Who?", "reference": "Ada | Grace", "answer": "compos"},
    {"epoch": 1.0, "question": "Who?", "reference": "Ada | Grace", "answer": "Ad"},
    {"epoch": 2.0, "question": "Who?", "reference": "Ada | Grace", "answer": "Ada\nGrace"},
]


@pytest.fixture
def written(tmp_path):
    """Writes a card; gives the hub's reading of it and its text."""
    import card
    from huggingface_hub import ModelCard

    def write(model="tiny", samples=(), train_file=tmp_path / "train.jsonl", **more):
        recipe = replace(read_recipe(TINY_RECIPE), model=str(model))
        metrics = {**METRICS, "model": str(model).rpartition("/" if train_file else "")[2]}
        card.write(
            tmp_path, recipe=recipe, metrics=metrics, train_file=train_file, samples=samples, **more
        )
        return ModelCard.load(tmp_path / "README.md").data, (tmp_path / "README.md").read_text()

    return write


def test_the_hub_can_read_what_it_is(written):
    data, text = written("microsoft/Phi-3.5-mini-instruct")
    assert data.base_model == "microsoft/Phi-3.5-mini-instruct"
    assert (data.license, data.library_name) == ("mit", "transformers")
    assert data.pipeline_tag == "text-generation" and "phi3" in data.tags
    assert "| evaluation loss | 7.2128 | 1.6778 |" in text
    assert "learning_rate: 0.002" in text and "| torch | 2.13.0 |" in text
    assert "{{" not in text and "{%" not in text


def test_the_licence_is_the_bases(written, tmp_path):
    assert written("microsoft/Phi-4-mini-instruct")[0].license == "mit"
    data, text = written("someone/else")
    assert data.license is None and "could not tell" in text
    data, text = written("tiny")
    assert data.license is None and "were random" in text
    base = tmp_path / "a-base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    data, text = written(base)
    assert data.license == "apache-2.0" and "`apache-2.0`, as its base" in text


def test_a_base_in_a_folder_is_named_without_its_path(written, tmp_path):
    base = tmp_path / "a-base"
    base.mkdir()
    data, text = written(base)
    assert data.base_model is None
    assert str(tmp_path) not in text and "a-base" in text


def test_samples_are_shown_before_and_after(written):
    text = written(samples=SAMPLES, picture="loss.png")[1]
    assert "| Who? | Ada \\| Grace | compos | Ada<br>Grace |" in text
    assert "![Loss over the steps](loss.png)" in text


def test_without_samples_and_picture_neither_is_spoken_of(written):
    text = written()[1]
    assert "Sample answers" not in text and "![" not in text


def test_the_manifest_beside_the_rows_is_shown_if_it_is_of_these_rows(written, tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_text('{"messages": []}\n')
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    manifest = {"source": "facts.jsonl", "rows": {"train": 480}, "sha256": {rows.name: digest}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    text = written()[1]
    assert "| source | facts.jsonl |" in text and "| rows | train: 480 |" in text
    rows.write_text("others\n")
    assert "no manifest" in written()[1]
