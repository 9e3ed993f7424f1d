"""Rows that max_length cuts or drops: they are counted, said, and too many are an error."""

import pytest
from inputs import TrainError, read_recipe
from row_counts import RowCounts
from small import read_metrics, write_recipe
from training_run import ROWS, TINY_RECIPE, TRAINING, command, conversation, environment, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")

# With 32 tokens, the answer of a CUT row loses its end, and that of a DROPPED row is lost completely.
CUT = conversation("Capital of France?", "The capital of France is Paris. " * 6)
DROPPED = conversation("What is the capital of France? " * 6, "Paris.")
MIXED_ROWS = [*ROWS[:12], CUT, CUT, CUT, DROPPED]
SETTINGS = {"max_length": 32, "num_train_epochs": 1}


def prepare(tmp_path, rows, max_cut_share=1.0, **settings):
    """Make a trainer of the rows; return its counts of the training rows."""
    from test_trainer import make_trainer

    trainer = make_trainer(tmp_path, rows=rows, max_cut_share=max_cut_share, **settings)
    return trainer, trainer.row_counts["train"]


def test_cut_and_dropped_rows_are_counted(tmp_path):
    trainer, counts = prepare(tmp_path, MIXED_ROWS, max_length=32)
    assert counts == RowCounts(total=16, cut=3, dropped=1)
    assert len(trainer.train_dataset) == counts.kept == 15
    assert max(len(row["input_ids"]) for row in trainer.train_dataset) == 32
    whole = [row for row in trainer.train_dataset if len(row["input_ids"]) < 32]
    assert len(whole) == 12


def test_without_a_limit_no_row_is_cut(tmp_path):
    assert prepare(tmp_path, MIXED_ROWS, max_length=None)[1] == RowCounts(total=16)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("bfd", RowCounts(total=16, cut=3, dropped=1)),
        # The parts of a split row are trained apart; its answer still counts.
        ("bfd_split", RowCounts(total=16, cut=4, dropped=0)),
    ],
)
def test_packed_rows_are_counted_before_they_are_packed(tmp_path, strategy, expected):
    settings = {"max_length": 32, "packing": True, "packing_strategy": strategy}
    trainer, counts = prepare(tmp_path, MIXED_ROWS, **settings)
    assert counts == expected
    packed = sum(len(row["seq_lengths"]) for row in trainer.train_dataset)
    assert packed >= counts.kept
    if strategy == "bfd":
        assert packed == counts.kept


def test_rows_that_fit_are_prepared_as_trl_prepares_them(tmp_path, monkeypatch):
    from trainer import Trainer
    from trl import SFTTrainer

    for settings in ({}, {"packing": True, "max_length": 64}, {"shuffle_dataset": True}):
        ours = prepare(tmp_path, ROWS, **settings)[0].train_dataset
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_prepare_dataset", SFTTrainer._prepare_dataset)
            from test_trainer import make_trainer

            theirs = make_trainer(tmp_path, **settings).train_dataset
        assert ours["input_ids"][:] == theirs["input_ids"][:]
        assert ours["labels"][:] == theirs["labels"][:]


@pytest.mark.finding(
    22,
    "most rows are longer than `max_length`",
    "cut and dropped rows are counted and reported; more than `max_cut_share` is an error",
)
def test_a_share_above_the_limit_is_an_error_with_the_numbers(tmp_path):
    with pytest.raises(TrainError) as caught:
        prepare(tmp_path, MIXED_ROWS, max_cut_share=0.2, max_length=32)
    assert str(caught.value) == (
        "4 of 16 rows of the training file are longer than max_length 32 (3 would be cut, and 1 "
        "dropped because no part of an answer is left), trainer.max_length: raise it, shorten the "
        "rows, or raise the recipe's max_cut_share (0.2)"
    )
    assert prepare(tmp_path, MIXED_ROWS, max_cut_share=0.25, max_length=32)


def test_a_file_without_any_row_left_is_always_an_error(tmp_path):
    with pytest.raises(TrainError, match="1 of 1 rows of the training file .*1 dropped"):
        prepare(tmp_path, [DROPPED], max_cut_share=1.0, max_length=32)


def test_a_row_without_any_token_to_train_on_is_an_error_in_words(tmp_path):
    from test_trainer import make_trainer

    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['content'] != 'No.' and "
        "m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    rows = [ROWS[0], conversation("Is it?", "No.")]
    with pytest.raises(TrainError, match="a row of the training file has no token to train on, "):
        make_trainer(tmp_path, rows=rows, template=template)


def run(tmp_path, rows, *extra, eval_rows=ROWS, **settings):
    """Run the real command line on the rows."""
    import subprocess

    recipe = write_recipe(tmp_path / "recipe.yaml", **(SETTINGS | settings))
    line = command(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out", recipe=recipe)
    line += ["--eval-file", str(write_rows(tmp_path / "eval.jsonl", eval_rows)), *extra]
    return subprocess.run(line, capture_output=True, text=True, env=environment(), check=False)


def test_the_counts_are_in_the_output_the_metrics_and_the_card(tmp_path):
    eval_rows = [*ROWS, CUT, DROPPED]
    finished = run(tmp_path, MIXED_ROWS, eval_rows=eval_rows, max_cut_share=0.25)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stderr.splitlines()
    assert "training file: max_length 32 cuts 3 and drops 1 of 16 rows" in lines[1]
    assert "evaluation file: max_length 32 cuts 1 and drops 1 of 14 rows" in lines[2]
    metrics = read_metrics(tmp_path / "out")
    counts = ("train_rows", "cut_train_rows", "dropped_train_rows")
    assert [metrics[name] for name in counts] == [16, 3, 1]
    counts = ("eval_rows", "cut_eval_rows", "dropped_eval_rows")
    assert [metrics[name] for name in counts] == [14, 1, 1]
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned on 15 conversations" in card
    assert "Measured on 13 conversations" in card
    assert "cut 3 and dropped 1 of the 16 rows of the training file" in card
    assert "cut 1 and dropped 1 of the 14 rows of the evaluation file" in card


def test_by_default_a_tenth_of_the_rows_may_be_cut(tmp_path):
    finished = run(tmp_path, MIXED_ROWS)
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert "4 of 16 rows of the training file are longer than max_length 32" in finished.stderr
    assert "max_cut_share (0.1)" in finished.stderr
    assert "France" not in finished.stderr
    assert read_recipe(TINY_RECIPE).max_cut_share == 0.1
    finished = run(tmp_path, ROWS, eval_rows=MIXED_ROWS)
    assert "4 of 16 rows of the evaluation file are longer" in finished.stderr


@pytest.mark.parametrize("value", ["1.5", "-0.1", "yes", "'0.1'", ".nan"])
def test_a_share_is_a_number_from_0_to_1(tmp_path, value):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: a/b\nmax_cut_share: {value}\n")
    with pytest.raises(TrainError, match="max_cut_share'? is not a number from 0 to 1, "):
        read_recipe(path)


def test_every_shipped_recipe_reports_rows_that_are_cut():
    for path in (TRAINING / "recipes").glob("*.yaml"):
        assert read_recipe(path).max_cut_share <= 0.1
