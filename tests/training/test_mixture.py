"""Several training files: the weights are shares of an epoch, and the seed decides which rows."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import card
import mixture
import options
import pytest
import run
import yaml
from inputs import TrainError, read_recipe
from mixture import MixedFile
from test_card import METRICS
from training_run import TINY_RECIPE, arguments, conversation, write_rows

pytestmark = pytest.mark.filterwarnings("ignore")

FILES = [Path("a.jsonl"), Path("b.jsonl")]
ROWS = [[{"a": n} for n in range(10)], [{"b": n} for n in range(30)]]


def mix(weights, seed=1, paths=FILES):
    return mixture.mix(paths, ROWS, weights, seed, Path("r.yaml"))


def test_without_weights_each_row_is_used_once():
    counts = [MixedFile("a.jsonl", 10, 10), MixedFile("b.jsonl", 30, 30)]
    assert mix(None) == ([*ROWS[0], *ROWS[1]], counts)
    assert mixture.mix(FILES[:1], ROWS[:1], None, 1, Path("r.yaml")) == (ROWS[0], [])


def test_the_weights_are_shares_of_an_epoch():
    rows, counts = mix({"a.jsonl": 3, "b.jsonl": 1})
    assert counts == [MixedFile("a.jsonl", 10, 30, 3), MixedFile("b.jsonl", 30, 10, 1)]
    assert Counter(str(row) for row in rows if "a" in row) == {str(row): 3 for row in ROWS[0]}
    assert len({str(row) for row in rows if "b" in row}) == 10
    line = "an epoch has 30 of 10 rows of a.jsonl, 10 of 30 rows of b.jsonl"
    assert mixture.describe(counts) == [line]


def test_the_seed_decides_which_rows():
    weights = {"a.jsonl": 0.55, "b.jsonl": 0.45}
    assert mix(weights) == mix(weights)
    assert mix(weights)[0] != mix(weights, seed=2)[0]
    assert mix(weights)[1] == mix(weights, seed=2)[1]


@pytest.mark.parametrize(
    ("weights", "paths", "problem"),
    [
        ({"a.jsonl": 1, "c": 1}, FILES, "`mixture` has no weight for b.jsonl, r.yaml: add"),
        ({"a.jsonl": 1, "b.jsonl": 1, "c": 1}, FILES, "`mixture` has c, and no --train-file"),
        ({"x/a": 1}, [Path("x/a"), Path("x/a")], "two files of the mixture have the same name"),
        ({"x/a": 1, "b": 1}, [Path("x/a"), Path("y/a")], "has no weight for y/a"),
    ],
)
def test_each_file_needs_a_weight_and_each_weight_a_file(weights, paths, problem):
    with pytest.raises(TrainError, match=problem):
        mix(weights, paths=paths)


def prepare(tmp_path, weights):
    """Prepare a run of two files with these weights."""
    content = yaml.safe_load(TINY_RECIPE.read_text(encoding="utf-8"))
    recipe = tmp_path / "own.yaml"
    recipe.write_text(yaml.safe_dump({**content, "mixture": weights}), encoding="utf-8")
    files = [
        write_rows(tmp_path / f"{name}.jsonl", [conversation(f"{name}{n}?", name) for n in "123"])
        for name in "ab"
    ]
    extra = [word for file in files for word in ("--train-file", str(file))]
    return run.prepare(options.parse(arguments(files[0], tmp_path / "out", recipe, *extra), ""))


def test_a_run_of_two_files_is_recognized_when_it_is_resumed(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    first = prepare(tmp_path, {"a.jsonl": 2, "b.jsonl": 1})
    first.checkpoints.begin(3)
    first.checkpoints.mark_complete(3)
    assert [file.used for file in first.inputs.mixed_files] == [4, 2]
    assert first.inputs.notes[0].startswith("an epoch has 4 of 3 rows of a.jsonl, 2 of 3 rows of")
    same = prepare(tmp_path, {"a.jsonl": 4, "b.jsonl": 2})
    assert same.inputs.train_rows == first.inputs.train_rows
    assert same.checkpoints.latest_of_this_run() is not None
    with pytest.raises(TrainError, match="the checkpoint was made with another"):
        prepare(tmp_path, {"a.jsonl": 1, "b.jsonl": 5}).checkpoints.latest_of_this_run()


def test_the_card_has_the_counts(tmp_path):
    metrics = replace(METRICS, train_files=[MixedFile("a.jsonl", 10, 30, 3)])
    recipe = read_recipe(TINY_RECIPE)
    card.write(tmp_path, recipe=recipe, metrics=metrics, train_file=tmp_path / "a.jsonl")
    assert "| a.jsonl | 10 | 30 | 3 |" in (tmp_path / "README.md").read_text(encoding="utf-8")
