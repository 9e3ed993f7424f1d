"""The saved model answers when it is loaded again, by transformers and like Azure ML."""

import math
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_model import tiny_model_dir  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore")

QUESTION = "Who founded Microsoft?"
TOKENS = 24


@pytest.fixture(scope="module")
def saved(tiny_model_dir, tmp_path_factory):  # noqa: F811
    """A folder with model/ and mlflow/ of a random model, saved by the real code."""
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
    answer = new_tokens(model, tokenizer, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(answer, skip_special_tokens=True)


def azure_run(model, input_data, params=None):
    """Call the model like the scoring script that Azure ML generates for an MLflow model."""
    if params is None and "parameters" in input_data:
        params = input_data.pop("parameters")
        if list(input_data) == ["input_string"]:
            input_data = input_data["input_string"]
    return model.predict(input_data, params=params)


def test_the_saved_model_stops_at_the_end_of_a_turn(loaded):
    model, tokenizer = loaded
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert set(model.generation_config.eos_token_id) == {end, tokenizer.eos_token_id}
    # With this bias the model generates the end of the turn first, and nothing follows.
    assert new_tokens(model, tokenizer, max_new_tokens=9, sequence_bias={(end,): 1e4}) == end


def test_by_default_mlflow_answers_like_greedy_transformers(loaded, served):
    assert served.predict([QUESTION], params={"max_new_tokens": TOKENS}) == [greedy(*loaded)]


def test_max_new_tokens_is_honoured(loaded, served):
    assert served.predict([QUESTION], params={"max_new_tokens": 3}) == [greedy(*loaded, tokens=3)]


def test_return_full_text_includes_the_prompt(served):
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


def test_both_request_forms_of_azure_get_the_same_answer(loaded, served):
    expected = [greedy(*loaded)]
    params = {"max_new_tokens": TOKENS, "temperature": 0.7, "do_sample": False}
    assert azure_run(served, [QUESTION], params) == expected
    nested = {"input_string": [QUESTION], "parameters": params}
    assert azure_run(served, nested) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "<|user|>\n{prompt}<|end|>\n<|assistant|>\n"),
        (
            "<s>{{ '{x} QUESTION ' }}{% for m in messages %}{{ m['content'] }}{% endfor %}</s>",
            "<s>{{x}} QUESTION {prompt}</s>",
        ),
    ],
    ids=["phi3", "other"],
)
def test_the_mlflow_model_prompts_with_the_models_own_template(loaded, template, expected):
    import copy

    import outputs

    tokenizer = copy.copy(loaded[1])
    tokenizer.chat_template = template or tokenizer.chat_template
    assert outputs.prompt_template(tokenizer) == expected


def test_several_questions_are_answered_in_order(served):
    params = {"max_new_tokens": 5}
    both = served.predict([QUESTION, "Hi"], params=params)
    assert both == [served.predict([text], params=params)[0] for text in (QUESTION, "Hi")]


def test_a_card_or_curve_that_fails_does_not_fail_the_run(tmp_path, capsys, monkeypatch):
    import card
    import curve
    import outputs

    def fail(*args, **kwargs):
        raise RuntimeError("SECRET")

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(card, "write", fail)
    monkeypatch.setattr(curve, "draw", fail)
    (tmp_path / "model").mkdir()
    outputs.write_curve_and_card(
        tmp_path,
        recipe=SimpleNamespace(name="tiny-cpu"),
        metrics=SimpleNamespace(model="tiny", base_eval_loss=math.nan, saved_step=0),
        train_file=tmp_path / "missing.jsonl",
        history=[],
        samples=[],
    )
    assert capsys.readouterr().err.splitlines() == [
        "train.py: the loss curve was not written (RuntimeError)",
        "train.py: the model card was not written (RuntimeError)",
    ]


def test_the_end_tokens_are_the_bases_and_the_ends_of_text_and_turn(loaded):
    import outputs

    tokenizer = loaded[1]
    end_of_turn = tokenizer.convert_tokens_to_ids("<|end|>")
    assert outputs.find_end_tokens(tokenizer, None) == [tokenizer.eos_token_id, end_of_turn]
    assert outputs.find_end_tokens(tokenizer, 7) == [7, tokenizer.eos_token_id, end_of_turn]
    assert outputs.find_end_tokens(tokenizer, [end_of_turn]) == [
        end_of_turn,
        tokenizer.eos_token_id,
    ]


def test_a_new_result_replaces_the_earlier_one(tmp_path):
    import outputs

    (tmp_path / "base").mkdir()
    (tmp_path / "metrics.json").write_text("earlier")
    with outputs.partial_folder(tmp_path) as folder:
        (folder / "model").mkdir()
        (folder / "metrics.json").write_text("new")
        outputs.publish(folder, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "metrics.json", ".phi3-made"}
    assert (tmp_path / "metrics.json").read_text() == "new"


def test_a_partial_folder_is_removed_after_an_error(tmp_path):
    import outputs

    with pytest.raises(RuntimeError), outputs.partial_folder(tmp_path) as folder:
        (folder / "model").mkdir()
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.finding(
    4,
    "a training is killed while it saves a model",
    "the next run deletes the partial folder",
)
@pytest.mark.parametrize("publishing", [False, True])
def test_the_partial_folder_of_a_killed_process_is_removed(tmp_path, publishing):
    """A folder with an earlier result stays: that result may be the only one."""
    code = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import outputs
with outputs.partial_folder(Path(sys.argv[1])) as folder:
    (folder / "model").mkdir()
    if sys.argv[3] == "True":
        (folder / "earlier").mkdir()
        (folder / "earlier" / "metrics.json").write_text("earlier")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    import outputs

    source = Path(outputs.__file__).parent
    command = [sys.executable, "-c", code, str(tmp_path), str(source), str(publishing)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    (tmp_path / ".partial-users").mkdir()
    (killed,) = {*tmp_path.iterdir()} - {tmp_path / ".partial-users"}
    with outputs.partial_folder(tmp_path) as folder, outputs.partial_folder(tmp_path):
        assert folder.exists()
    remaining = {".partial-users", killed.name} if publishing else {".partial-users"}
    assert {path.name for path in tmp_path.iterdir()} == remaining
