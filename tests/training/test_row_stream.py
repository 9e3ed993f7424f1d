"""Training rows that are read while the model trains: the same order and result, and bounded memory."""

import json
import signal
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import options
import pytest
import row_stream
import run
import yaml
from inputs import Recipe, TrainError, iterate_rows, read_recipe
from small import RECIPE, read_metrics, read_weights, run_two_processes
from training_run import (
    ROWS,
    TINY_RECIPE,
    TRAINING,
    arguments,
    conversation,
    finish,
    stop_at,
    write_rows,
)

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = {"max_steps": 6, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def scan(paths, buffer=1, mixture=None, **trainer):
    """Return the stream of these files, for a run of 24 rows."""
    streaming = {"shuffle_buffer": buffer}
    recipe = Recipe("r", "tiny", seed=3, streaming=streaming, mixture=mixture)
    return row_stream.scan(
        paths, replace(recipe, trainer=STEPS | trainer), Path("r.yaml"), iterate_rows
    )


@pytest.fixture
def files(tmp_path):
    """Two files with 10 and 30 rows, whose answers are their file's name and their number."""
    sizes = {"a": 10, "b": 30}
    return [
        write_rows(tmp_path / f"{name}.jsonl", [conversation("?", f"{name}{n}") for n in range(n)])
        for name, n in sizes.items()
    ]


def answers(stream, count):
    return [row["messages"][-1]["content"] for row in islice(iter(stream.dataset()), count)]


def test_without_shuffling_the_order_is_that_of_the_files_again_and_again(files):
    once = [f"a{n}" for n in range(10)] + [f"b{n}" for n in range(30)]
    stream = scan(files)
    assert answers(stream, 85) == [*once, *once, *once[:5]]
    assert stream.rows == 40 and len(stream.sample) == 40
    assert stream.describe() == (
        "streaming 40 rows; the run reads 24 rows: about 6 of a.jsonl (10), 18 of b.jsonl (30), "
        "in the order of the files"
    )


def test_a_buffer_shuffles_and_uses_each_row_of_a_pass(files):
    stream = scan(files, buffer=16)
    order = answers(stream, 400)
    assert order == answers(stream, 400) != answers(scan(files), 400)
    assert set(Counter(order).values()) <= {8, 9, 10, 11, 12} and len(set(order)) == 40
    assert order[:40] != order[40:80]


def test_with_weights_each_row_is_from_a_random_file(files):
    stream = scan(files, buffer=4, mixture={"a.jsonl": 3, "b.jsonl": 1})
    counts = Counter(answer[0] for answer in answers(stream, 1000))
    assert counts["a"] == pytest.approx(750, abs=60)
    assert [file.used for file in stream.files] == [18, 6]
    assert stream.describe().endswith("shuffled within 4 rows")
    with pytest.raises(TrainError, match="`mixture` has no weight for b.jsonl, r.yaml"):
        scan(files, mixture={"a.jsonl": 3, "c.jsonl": 1})


def test_a_wrong_row_is_found_before_the_training(files):
    with files[1].open("a", encoding="utf-8") as file:
        file.write('{"messages": []}\n')
    with pytest.raises(TrainError, match=r"the row has no messages, .*b.jsonl line 31: a row is "):
        scan(files)
    write_rows(files[1], [])
    with pytest.raises(TrainError, match="the file has no rows, .*b.jsonl"):
        scan(files)


def test_the_hash_is_that_of_the_rows_and_weights(files):
    weights = {"a.jsonl": 3, "b.jsonl": 1}
    digests = [scan(files).digest, scan(files[:1]).digest, scan(files, mixture=weights).digest]
    assert len(set(digests)) == 3 and scan(files).digest == digests[0]


def test_the_sample_is_evenly_spaced(tmp_path, monkeypatch):
    monkeypatch.setattr(row_stream, "SAMPLE_ROWS", 5)
    rows = write_rows(tmp_path / "rows.jsonl", [conversation("?", str(n)) for n in range(45)])
    sample = [int(row["messages"][-1]["content"]) for row in scan([rows]).sample]
    assert sample == [0, 8, 16, 24, 32, 40]


def test_the_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    import datasets  # noqa: F401 - its import takes more memory than the rows

    monkeypatch.setattr(row_stream, "SAMPLE_ROWS", 100)
    line = json.dumps(conversation("?", "a long answer " * 200)) + "\n"
    peaks = []
    for count in (1000, 4000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text(line * count, encoding="utf-8")
        tracemalloc.start()
        stream = scan([path], buffer=200)
        read = sum(1 for _ in islice(iter(stream.dataset()), count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read == count
    assert peaks[1] < 1.2 * peaks[0] < len(line) * 1000


def prepare(rows_file, folder, buffer=1, **trainer):
    """Return the trainer of a streamed run of the small model, or of a run in memory (`buffer=None`)."""
    import train
    import transformers

    recipe = yaml.safe_load(RECIPE)
    del recipe["trainer"]["num_train_epochs"]
    recipe["trainer"] |= STEPS | {"save_steps": 3} | trainer
    for name in ("rows_per_sequence", "attention"):
        recipe |= {name: recipe["trainer"].pop(name)} if name in trainer else {}
    if buffer is None:
        recipe["trainer"]["train_sampling_strategy"] = "sequential"
    else:
        recipe["streaming"] = {"shuffle_buffer": buffer}
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    prepared = run.prepare(options.parse(arguments(rows_file, folder, path), ""))
    transformers.set_seed(3)
    return train.make_trainer(prepared, train.load(prepared, folder), [])


def weights(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def are_equal(first, second):
    return all((first[name] == second[name]).all() for name in first)


def test_the_result_is_that_of_a_run_in_memory_in_the_same_order(rows_file, tmp_path):
    results = []
    for buffer in (None, 1, 8):
        trainer = prepare(rows_file, tmp_path / str(buffer), buffer)
        trainer.train()
        results.append(weights(trainer))
    assert are_equal(*results[:2]) and not are_equal(*results[1:])
    assert 24 <= trainer.streamed.total <= 26 and not trainer.streamed.cut


def test_several_rows_share_a_sequence(rows_file, tmp_path):
    trainer = prepare(rows_file, tmp_path / "out", rows_per_sequence=2, attention="sdpa")
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 1 and batch["segment_ids"].max() == 2


def test_a_resumed_run_continues_at_the_same_row(rows_file, tmp_path):
    unbroken = prepare(rows_file, tmp_path / "out", buffer=8)
    unbroken.train()
    resumed = prepare(rows_file, tmp_path / "resumed", buffer=8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoints" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert are_equal(weights(unbroken), weights(resumed))
    assert resumed.streamed == unbroken.streamed


def test_rows_that_are_too_long_are_counted_and_limited(rows_file, tmp_path):
    with pytest.raises(TrainError, match="12 of 12 rows of the training file are longer than max_"):
        prepare(rows_file, tmp_path / "out", max_length=8)


@pytest.fixture(scope="module")
def mixed_stream(rows_file, tmp_path_factory):
    """A function that returns the command line of a run of two files, and an unbroken run's folder."""
    folder = tmp_path_factory.mktemp("stream")
    recipe = yaml.safe_load(RECIPE)
    del recipe["trainer"]["num_train_epochs"]
    recipe["trainer"]["max_steps"] = 40
    recipe["streaming"] = {"shuffle_buffer": 8}
    recipe["mixture"] = {"rows.jsonl": 3, "more.jsonl": 1}
    path = folder / "stream.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    files = [rows_file, write_rows(folder / "more.jsonl", ROWS[:3])]
    extra = [word for file in files for word in ("--train-file", str(file))]

    def line(out, *more):
        return arguments(rows_file, out, path, *extra, *more)

    output = finish(line(folder / "unbroken"))
    assert "train.py: streaming 15 rows; the run reads 160 rows: about 120 of rows.jsonl" in output
    return line, folder / "unbroken"


@pytest.mark.slow
def test_a_killed_stream_ends_like_an_unbroken_one(mixed_stream, tmp_path):
    command, unbroken = mixed_stream
    line = command(tmp_path, "--resume")
    assert stop_at(line, 16, signal.SIGKILL)[0] == -signal.SIGKILL
    assert "resuming from" in finish(line)
    expected, metrics = read_metrics(unbroken), read_metrics(tmp_path)
    assert are_equal(read_weights(unbroken), read_weights(tmp_path))
    for name in ("steps", "tokens", "eval_loss", "train_rows", "streamed_rows", "train_files"):
        assert metrics[name] == expected[name]
    assert metrics["train_rows"] == 15 and metrics["streamed_rows"] >= 160
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"The run read {metrics['streamed_rows']} rows of 2 files while it trained." in card


@pytest.mark.slow
def test_two_processes_share_a_stream(mixed_stream, tmp_path):
    command, unbroken = mixed_stream
    finished = run_two_processes(TRAINING / "train.py", *command(tmp_path))
    assert finished.returncode == 0, finished.stderr
    expected, metrics = read_metrics(unbroken), read_metrics(tmp_path)
    assert metrics["tokens"] == expected["tokens"]
    # The evaluation differs: its last batches are padded with repeated rows.
    for name in ("train_loss", "last_train_loss"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-2)


def test_epochs_are_refused(rows_file, tmp_path):
    recipe = replace(read_recipe(TINY_RECIPE), streaming={"shuffle_buffer": 1})
    line = options.parse(arguments(rows_file, tmp_path, TINY_RECIPE, "--epochs", "2"), "")
    with pytest.raises(TrainError, match="--epochs has no effect with `streaming`"):
        options.override(recipe, line)
