"""Wrong inputs: one line each, saying what, where and what to do, before anything heavy starts."""

import subprocess
import sys
import time

import pytest
from inputs import TrainError, check_model, check_output, read_recipe, read_rows
from training_run import ROWS, TINY_RECIPE, TRAINING, write_rows

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}

GOOD = [
    [USER, ANSWER],
    [SYSTEM, USER, ANSWER],
    [USER, ANSWER, USER, ANSWER],
    [SYSTEM, USER, ANSWER, USER, ANSWER],
]
BAD_MESSAGES = {
    "nothing": ([], "no messages"),
    "no list": ("hello", "no messages"),
    "no object": (["hello"], "message 1 has the wrong role"),
    "answer first": ([ANSWER, USER], "message 1 has the wrong role"),
    "unknown role": ([USER, {"role": "bot", "content": "a"}], "message 2 has the wrong role"),
    "two users": ([USER, USER, ANSWER], "message 2 has the wrong role"),
    "system later": ([USER, SYSTEM], "message 2 has the wrong role"),
    "no answer": ([SYSTEM, USER], "the last message is not the assistant's"),
    "blank": (
        [USER, {"role": "assistant", "content": " \n"}],
        "message 2 (assistant) has no content",
    ),
    "no text": ([USER, {"role": "assistant", "content": None}], "message 2 (assistant) has no"),
}


@pytest.mark.parametrize("messages", GOOD)
def test_conversations_are_read(tmp_path, messages):
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": messages, "prompt": "ignored"}])
    assert read_rows(path) == [{"messages": messages}]


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_conversation_is_named_by_its_line(tmp_path, name):
    messages, problem = BAD_MESSAGES[name]
    path = write_rows(tmp_path / "rows.jsonl", [ROWS[0], {"messages": messages}])
    with pytest.raises(TrainError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(problem)
    assert f"{path} line 2: " in str(caught.value)


def test_limit_stops_reading(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROWS[0], {"no": "messages"}])
    assert len(read_rows(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": [SECRET\n', "not JSON"),
        (b"", "the file has no rows"),
        (b'{"messages": "\xff"}\n', "the file is not UTF-8"),
        (b"[1, 2]\n", "no messages"),
    ],
)
def test_a_broken_file_is_named_but_not_quoted(tmp_path, content, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(TrainError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(problem)
    assert str(path) in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainError, match="cannot read the rows, .*gone.jsonl: no such file"):
        read_rows(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model: [", "the recipe is not YAML"),
        ("seed: 1", "the recipe names no `model`"),
        ("model: tiny\ntiny: {hidden_size: 8}", "the recipe has no tiny.max_position_embeddings"),
        ("model: a/b\nmodle: x", "unknown section 'modle'"),
        ("model: a/b\nlora: yes", "the recipe's 'lora' is not dict"),
        ("model: a/b\nlora: {rank: 8}", "unknown setting lora.rank"),
        ("model: a/b\nsave_dtype: int4", "the recipe's save_dtype is none of"),
        ("model: a/b\nlora: {}\nquantization: int8", "the recipe's quantization is none of nf4"),
        ("model: a/b\nquantization: nf4", "the recipe has `quantization` without `lora`"),
        ("model: a/b\nlora: {}\nfsdp: {}", "the recipe has `fsdp` with `lora`"),
        ("model: a/b\ntrainer: {save_total_limit: 1}", "trainer.save_total_limit is"),
        ("model: a/b\ntrainer: {assistant_only_loss: false}", "trainer.assistant_only_loss is"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path, content, problem):
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TrainError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(problem)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(TrainError, match="cannot read the recipe, .*gone.yaml"):
        read_recipe(tmp_path / "gone.yaml")


@pytest.mark.parametrize("recipe", sorted(TINY_RECIPE.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_read(recipe):
    assert read_recipe(recipe).trainer["learning_rate"] < 0.01


def test_a_model_is_a_folder_or_a_hub_id(tmp_path):
    check_model("tiny")
    check_model("microsoft/Phi-3.5-mini-instruct")
    with pytest.raises(TrainError, match="or one of phi-3-mini-4k, phi-3.5-mini, phi-4-mini"):
        check_model("phi-5-mini")
    with pytest.raises(TrainError, match="the model folder has no config.json"):
        check_model(str(tmp_path))
    with pytest.raises(TrainError, match="no such model folder"):
        check_model(str(tmp_path / "gone"))


def test_an_output_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="cannot write the output"):
        check_output(tmp_path / "file" / "out")


def test_the_command_line_says_it_in_one_line(train_cli, tmp_path):
    started = time.monotonic()
    done = train_cli(tmp_path / "out", "--model", str(tmp_path))
    assert done.returncode == 1
    fix = "give a folder that save_pretrained wrote"
    line = f"train.py: the model folder has no config.json, {tmp_path}: {fix}\n"
    assert (done.stdout, done.stderr) == ("", line)
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - started < 5, "heavy imports before the inputs are checked"


def test_verbose_adds_the_traceback(train_cli, tmp_path):
    done = train_cli(tmp_path / "out", "--model", str(tmp_path), "--verbose")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("extra", [["--rows", "0"], ["--epochs", "many"], ["--nonsense"]])
def test_wrong_usage_exits_with_2(train_cli, tmp_path, extra):
    assert train_cli(tmp_path / "out", *extra).returncode == 2


def test_help_needs_no_library():
    line = [sys.executable, "-X", "importtime", str(TRAINING / "train.py"), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert "--recipe" in done.stdout
    assert not {"torch", "transformers", "yaml"} & {
        row.rpartition("|")[2].strip() for row in done.stderr.splitlines()
    }
