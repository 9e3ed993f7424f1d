"""Sample answers: correct for each question, stored, and without an effect on the training."""

import json
from dataclasses import asdict

import pytest
from training_run import ROWS, conversation

from tiny_model import tiny_model_dir  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def loaded(tiny_model_dir):  # noqa: F811
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return model, AutoTokenizer.from_pretrained(tiny_model_dir)


def train(loaded, folder, callbacks):
    """Train four steps with dropout, which uses the random state, and evaluate twice."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = loaded
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.1
    config = SFTConfig(
        output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=6, max_length=64,
        eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
        bf16=False, gradient_checkpointing=True, learning_rate=1e-2,
    )  # fmt: skip
    rows = Dataset.from_list(ROWS)
    trainer = SFTTrainer(
        model, config, train_dataset=rows, eval_dataset=rows.select(range(3)),
        processing_class=tokenizer, callbacks=callbacks,
    )  # fmt: skip
    trainer.train()
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def test_samples_do_not_change_the_training(loaded, tiny_model_dir, tmp_path, capsys):  # noqa: F811
    import torch
    from samples import Samples
    from transformers import AutoModelForCausalLM

    same_model = AutoModelForCausalLM.from_pretrained(tiny_model_dir), loaded[1]
    without = train(loaded, tmp_path, [])
    samples = Samples(ROWS, ROWS, 3, loaded[1], tmp_path / "samples.jsonl")
    with_samples = train(same_model, tmp_path, [samples])
    assert all(torch.equal(with_samples[name], without[name]) for name in without)
    stored = [json.loads(line) for line in (tmp_path / "samples.jsonl").open(encoding="utf-8")]
    assert stored == [asdict(sample) for sample in samples.answers]
    assert [row["epoch"] for row in stored] == [1.0] * 3 + [2.0] * 3
    # Standard error is not a terminal, so none of the data is printed.
    assert "capital" not in "".join(capsys.readouterr())


def test_answers_in_a_batch_equal_those_of_single_questions(loaded):
    import samples
    import torch

    model, tokenizer = loaded
    tokenizer.padding_side = "right"  # the default of some bases
    model.train()
    model.lm_head.eval()
    state = torch.get_rng_state()
    questions = ("Hi", "What is the capital of France?")
    prompts = [conversation(question, "…")["messages"][:1] for question in questions]

    def answers(prompts):
        return samples.generate_answers(model, tokenizer, prompts, max_new_tokens=12)

    batch = answers(prompts)
    assert batch == [answers([prompt])[0] for prompt in prompts]
    assert batch[0] != batch[1]
    assert model.training and not model.lm_head.training
    assert torch.equal(torch.get_rng_state(), state)
    assert tokenizer.padding_side == "right"


def test_the_questions_are_evenly_spaced_over_the_file():
    from inputs import evenly_spaced

    rows = [{"row": n} for n in range(10)]
    assert [row["row"] for row in evenly_spaced(rows, 3)] == [0, 4, 9]
    assert evenly_spaced(rows, 0) == [] and evenly_spaced(rows, 1) == rows[:1]
    assert evenly_spaced(rows[:2], 3) == rows[:2]


@pytest.mark.parametrize("count", [0, 2])
def test_samples_that_fail_do_not_fail_the_training(tmp_path, capsys, count):
    from samples import Samples
    from transformers import TrainerState

    samples = Samples(ROWS, ROWS, count, None, tmp_path / "samples.jsonl")
    for _ in range(2):
        samples.on_evaluate(None, TrainerState(epoch=1.0), None, model=None)
    assert not (tmp_path / "samples.jsonl").exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 if count else 0)
    assert all(line.endswith("training continues") for line in lines)


def test_a_terminal_gets_one_line_per_answer():
    from samples import SampleAnswer, format_line

    right = SampleAnswer(1.5, "Who?", "Ada", "Ada")
    assert format_line(right) == "  epoch 1.5: Who? → Ada = Ada"
    wrong = SampleAnswer(2.0, "Who\nis it?", "Ada", "x" * 100)
    assert format_line(wrong) == f"  epoch 2: Who is it? → {'x' * 59}… ≠ Ada"


def test_questions_with_a_trained_answer_are_preferred(tmp_path, monkeypatch):
    import samples
    from transformers import TrainerState

    rows = [conversation(f"q{n}", f"a{n}") for n in range(4)]
    monkeypatch.setattr(samples, "generate_answers", lambda model, _, prompts: ["a"] * len(prompts))

    def asked(train_rows):
        callback = samples.Samples(rows, train_rows, 2, None, tmp_path / "samples.jsonl")
        callback.on_evaluate(None, TrainerState(epoch=1.0), None, model=None)
        return [(sample.question, sample.is_trained) for sample in callback.answers]

    assert asked([conversation("other words", "a2")]) == [("q2", True)]
    assert asked([conversation("other words", "x")]) == [("q0", False), ("q3", False)]
    (line,) = {samples.format_line(samples.SampleAnswer(1, "q", "a", "b", False))}
    assert line.endswith("≠ a (not trained on)")


def test_only_the_main_process_stores_answers(loaded, tmp_path, monkeypatch):
    import samples
    from transformers import TrainerState

    monkeypatch.setattr(samples, "generate_answers", lambda *args: ["an answer"])
    callback = samples.Samples(ROWS, ROWS, 1, loaded[1], tmp_path / "samples.jsonl")
    state = TrainerState(epoch=1.0, is_world_process_zero=False)
    callback.on_evaluate(None, state, None, model=None)
    assert not (tmp_path / "samples.jsonl").exists()
    state.is_world_process_zero = True
    callback.on_evaluate(None, state, None, model=None)
    assert [sample.answer for sample in callback.answers] == ["an answer"]
