"""Journey: the tiny recipe learns the shipped samples. Complete trainings, so it takes minutes."""

import json
import subprocess
import sys
from statistics import mean

import pytest
from training_run import TINY_RECIPE, TRAINING, command, environment

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.slow,  # three complete trainings
]

SAMPLES = TRAINING.parent / "phi3_ops" / "samples" / "facts.jsonl"
SEEDS = (1, 2, 3)  # seeds of the split and of the training


@pytest.fixture(scope="module")
def exact_matches(tmp_path_factory):
    """The share of exact greedy answers, by kind of question, as a list with one entry per seed."""
    sys.path.insert(0, str(TRAINING.parent))
    from phi3_ops.data import prepare_data

    shares = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"seed-{seed}")
        prepare_data(SAMPLES, folder, seed=seed)
        train(folder, seed)
        questions = [
            json.loads(line) for line in (folder / "questions.jsonl").open(encoding="utf-8")
        ]
        shares.append(score(folder / "out" / "model", questions))
    return {kind: [share[kind] for share in shares] for kind in shares[0]}


def train(folder, seed):
    line = command(folder / "train.jsonl", folder / "out", "--seed", str(seed), recipe=TINY_RECIPE)
    line[line.index("--eval-file") + 1] = str(folder / "test.jsonl")
    subprocess.run(line, check=True, env=environment(), timeout=600)


def score(model_folder, questions):
    """Return the share of exact answers by kind of question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    is_exact: dict[str, list[bool]] = {}
    for start in range(0, len(questions), 50):
        rows = questions[start : start + 50]
        turns = [[{"role": "user", "content": row["question"]}] for row in rows]
        prompts = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt"
        )
        tokens = model.generate(**prompts, max_new_tokens=64)[:, prompts["input_ids"].shape[1] :]
        answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for row, answer in zip(rows, answers):
            is_exact.setdefault(row["kind"], []).append(answer == row["ground_truth"])
    return {kind: mean(values) for kind, values in is_exact.items()}


def test_trained_phrasings_are_answered_exactly(exact_matches):
    assert mean(exact_matches["trained"]) >= 0.98, exact_matches


def test_held_out_phrasings_of_known_facts_are_recognised(exact_matches):
    assert mean(exact_matches["held-out"]) >= 0.80, exact_matches


def test_unknown_facts_stay_unknown(exact_matches):
    assert mean(exact_matches["unknown"]) <= 0.10, exact_matches
