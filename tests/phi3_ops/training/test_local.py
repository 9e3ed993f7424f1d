"""The table at the end of `phi3 finetune --local`."""

import json

from rich.console import Console

from phi3_ops.training.local import TrainingMetrics, base_and_tuned_table

METRICS = TrainingMetrics(
    steps=8,
    train_loss=2.5,
    eval_loss=1.678,
    perplexity=5.35,
    base_eval_loss=7.2128,
    base_perplexity=1356.7,
)


def shown(folder):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(base_and_tuned_table(folder, METRICS))
    return [line.strip() for line in capture.get().splitlines()]


def test_losses_and_answers_of_base_and_tuned_stand_side_by_side(tmp_path):
    said = [("A?", "[b]"), ("B?", "x" * 99), ("A?", "a"), ("B?", "wrong"), ("A?", "a"), ("B?", "c")]
    rows = [
        {"epoch": n // 2, "question": asked, "reference": asked[0].lower(), "answer": answer}
        for n, (asked, answer) in enumerate(said)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [line.split() for line in shown(tmp_path)]
    assert ["evaluation", "loss", "lower", "7.213", "1.678"] in lines
    assert ["perplexity", "lower", "1,356.700", "5.350"] in lines
    assert ["exact", "answers", "of", "2", "samples", "2", "0", "1"] in lines
    assert ["A?", "a", "[b]", "a"] in lines and ["B?", "b", "x" * 59 + "…", "c"] in lines


def test_without_samples_there_are_the_losses(tmp_path):
    text = "\n".join(shown(tmp_path))
    assert "1.678" in text and "samples" not in text
