"""What is saved answers when it is loaded back: as transformers does, and as Azure ML asks it."""

import json
import math

import pytest

from tiny_model import tiny_model_dir  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore")

QUESTION = "Who founded Microsoft?"
TOKENS = 24


@pytest.fixture(scope="module")
def saved(tiny_model_dir, tmp_path_factory):  # noqa: F811
    """A folder with model/ and mlflow/ of a random model, as train.py saves them."""
    import outputs
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("saved")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    outputs.save_huggingface(model, tokenizer, folder / "model")
    outputs.save_mlflow(model, tokenizer, folder / "mlflow")
    return folder


@pytest.fixture(scope="module")
def loaded(saved):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = saved / "model"
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def served(saved):
    import mlflow

    return mlflow.pyfunc.load_model(str(saved / "mlflow"))


def new_tokens(model, tokenizer, **settings):
    turns = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return model.generate(**prompt, **settings)[0, prompt["input_ids"].shape[1] :]


def greedy(model, tokenizer, tokens=TOKENS):
    found = new_tokens(model, tokenizer, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(found, skip_special_tokens=True)


def azure_run(model, input_data, params=None):
    """As the scoring script that Azure ML generates for an MLflow model without one."""
    if params is None and "parameters" in input_data:
        params = input_data.pop("parameters")
        if list(input_data) == ["input_string"]:
            input_data = input_data["input_string"]
    return model.predict(input_data, params=params)


def test_the_folder_stops_at_the_end_of_a_turn(loaded):
    model, tokenizer = loaded
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert set(model.generation_config.eos_token_id) == {end, tokenizer.eos_token_id}
    # Made to say it at once: nothing comes after it.
    assert new_tokens(model, tokenizer, max_new_tokens=9, sequence_bias={(end,): 1e4}) == end


def test_defaults_are_transformers_greedy_answers(loaded, served):
    assert served.predict([QUESTION], params={"max_new_tokens": TOKENS}) == [greedy(*loaded)]


def test_max_new_tokens_is_honoured(loaded, served):
    assert served.predict([QUESTION], params={"max_new_tokens": 3}) == [greedy(*loaded, tokens=3)]


def test_return_full_text_puts_the_prompt_in_front(served):
    params = {"max_new_tokens": TOKENS, "return_full_text": True}
    text = served.predict([QUESTION], params=params)[0]
    assert text.startswith(f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n")


def test_do_sample_temperature_and_top_p_are_honoured(loaded, served):
    def sampled(**params):
        import torch

        torch.manual_seed(1)
        params = {"max_new_tokens": TOKENS, "do_sample": True, **params}
        return served.predict([QUESTION], params=params)[0]

    expected = greedy(*loaded)
    assert sampled(temperature=5.0) != expected
    assert sampled(temperature=1e-4) == expected
    assert sampled(temperature=5.0, top_p=1e-6) == expected


def test_azures_two_requests_are_answered_alike(loaded, served):
    expected = [greedy(*loaded)]
    params = {"max_new_tokens": TOKENS, "temperature": 0.7, "do_sample": False}
    assert azure_run(served, [QUESTION], params) == expected
    nested = {"input_string": [QUESTION], "parameters": params}
    assert azure_run(served, nested) == expected


def test_several_questions_are_answered_in_their_order(served):
    params = {"max_new_tokens": 5}
    both = served.predict([QUESTION, "Hi"], params=params)
    assert both == [served.predict([text], params=params)[0] for text in (QUESTION, "Hi")]


def test_the_loss_after_the_last_step_is_not_measured_twice():
    import outputs

    history = [
        {"step": 1, "eval_loss": 3.0},
        {"step": 2, "loss": 1.0},
        {"step": 2, "eval_loss": 2.0},
    ]
    assert outputs.last_eval_loss(history) == 2.0
    assert outputs.last_eval_loss([*history, {"step": 3, "train_loss": 1.0}]) is None


def test_a_card_or_curve_that_fails_costs_nothing_else(tmp_path, capsys):
    import outputs
    from inputs import read_recipe
    from training_run import TINY_RECIPE

    (tmp_path / "model").mkdir()
    outputs.describe(
        tmp_path,
        recipe=read_recipe(TINY_RECIPE),
        metrics={"model": "tiny", "base_eval_loss": math.nan},
        train_file=tmp_path / "none.jsonl",
        history=[],
        samples=[],
    )
    assert "train.py: no model card (" in capsys.readouterr().err


def test_metrics_are_json(tmp_path):
    import outputs

    outputs.write_metrics({"loss": 1.5}, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 1.5}
