"""Wrong inputs: each is one line that says what is wrong, where, and what to do."""

import json
from pathlib import Path

import inputs
import pytest
from inputs import (
    MODELS,
    Recipe,
    TrainError,
    check_model,
    check_output,
    is_local_model,
    read_recipe,
    read_rows,
    resolve_model,
)
from training_run import ROWS, TINY_RECIPE, conversation, write_rows

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
    "empty list": ([], "the row has no messages"),
    "not a list": ("hello", "the row has no messages"),
    "not an object": (["hello"], "message 1 has the wrong role"),
    "answer first": ([ANSWER, USER], "message 1 has the wrong role"),
    "unknown role": ([USER, {"role": "bot", "content": "a"}], "message 2 has the wrong role"),
    "two users": ([USER, USER, ANSWER], "message 2 has the wrong role"),
    "system later": ([USER, SYSTEM], "message 2 has the wrong role"),
    "no answer": ([SYSTEM, USER], "the last message is not the assistant's"),
    "blank": (
        [USER, {"role": "assistant", "content": " \n"}],
        "message 2 (assistant) has no content",
    ),
    "not text": ([USER, {"role": "assistant", "content": None}], "message 2 (assistant) has no"),
}


@pytest.mark.parametrize("messages", GOOD)
def test_conversations_are_read(tmp_path, messages):
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": messages, "prompt": "ignored"}])
    assert read_rows(path) == [{"messages": messages}]


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_wrong_conversation_is_reported_with_its_line(tmp_path, name):
    messages, problem = BAD_MESSAGES[name]
    path = write_rows(tmp_path / "rows.jsonl", [ROWS[0], {"messages": messages}])
    with pytest.raises(TrainError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(problem)
    assert f"{path} line 2: " in str(caught.value)


def test_rows_after_the_limit_are_not_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROWS[0], {"no": "messages"}])
    assert len(read_rows(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"messages": [SECRET\n', "the line is not valid JSON"),
        (b"", "the file has no rows"),
        (b'{"messages": "\xff"}\n', "the file is not UTF-8"),
        (b"[1, 2]\n", "the row has no messages"),
    ],
)
def test_a_wrong_file_is_reported_without_its_content(tmp_path, content, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(TrainError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(problem)
    assert str(path) in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(TrainError, match="cannot read the rows, .*missing.jsonl: no such file"):
        read_rows(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model: [", "the recipe is not valid YAML"),
        ("seed: 1", "the recipe has no `model`"),
        ("model: tiny\ntiny: {hidden_size: 8}", "the recipe has no tiny.max_position_embeddings"),
        ("model: a/b\nmodle: x", "unknown section 'modle'"),
        ("model: a/b\nlora: yes", "the recipe's 'lora' is not a mapping"),
        ("model: a/b\nlora: {rank: 8}", "unknown setting lora.rank"),
        ("model: a/b\nlora: {r: yes}", "the recipe's lora.r has the wrong type"),
        ("model: a/b\nlora: {dora: 1}", "the recipe's lora.dora has the wrong type"),
        (
            "model: a/b\nlora: {target_modules: all}",
            "the recipe's lora.target_modules is not",
        ),
        ("model: a/b\nmerge: no", "the recipe has `merge` without `lora`"),
        ("model: a/b\nlora: {}\nmerge: 1", "the recipe's 'merge' is not true or false"),
        ("model: a/b\nmethod: ppo", "the recipe's method is not one of sft, dpo"),
        ("model: a/b\nmethod: dpo", "the recipe has `method: dpo` without `lora`"),
        (
            "model: a/b\nmethod: dpo\nlora: {}\nrows_per_sequence: 2",
            "the recipe has `rows_per_sequence` with `method: dpo`",
        ),
        (
            "model: a/b\nmethod: dpo\nlora: {dropout: 0.1}",
            "the recipe's lora.dropout needs `trainer.dis",
        ),
        ("model: a/b\nearly_stopping: {}", "the recipe's early_stopping needs patience"),
        (
            "model: a/b\nearly_stopping: {patience: 0}",
            "the recipe's early_stopping.patience is not above 0",
        ),
        (
            "model: a/b\nearly_stopping: {patience: yes}",
            "the recipe's early_stopping.patience is not a number",
        ),
        ("model: a/b\nearly_stopping: {patience: 1, x: 1}", "unknown setting early_stopping.x"),
        (
            "model: a/b\nearly_stopping: {patience: 1}",
            "the recipe has `early_stopping` without `trainer.load_best_model_at_end: true`",
        ),
        ("model: a/b\nsave_dtype: int4", "the recipe's save_dtype is not one of"),
        ("model: a/b\nlora: {}\nquantization: int8", "the recipe's quantization is not one of nf4"),
        ("model: a/b\nquantization: nf4", "the recipe has `quantization` without `lora`"),
        ("model: a/b\nlora: {}\nfsdp: {}", "the recipe has `fsdp` with `lora`"),
        ("model: a/b\nfsdp: {cpu_ofload: true}", "unknown setting fsdp.cpu_ofload"),
        ("model: tiny\ntiny: {hiden_size: 8}", "unknown setting tiny.hiden_size"),
        ("model: a/b\ntiny: {hidden_size: 8}", "the recipe has a section `tiny`, and its model is"),
        (
            "model: tiny\nlora: {}\nquantization: nf4\n"
            "tiny: {vocab_size: 300, hidden_size: 8, max_position_embeddings: 8}",
            "the recipe has `quantization`, which the tiny model does not use",
        ),
        ("model: a/b\ntrained_layers: 0", "the recipe's trained_layers is not above 0"),
        ("model: a/b\nrows_per_sequence: 0", "the recipe's rows_per_sequence is not above 0"),
        (
            "model: a/b\ntrained_layers: 2\nlora: {}",
            "the recipe has `trained_layers` with `lora`, which does not support it",
        ),
        (
            "model: a/b\nrows_per_sequence: 2\ntrainer: {packing: true}",
            "the recipe has `rows_per_sequence` with trainer.packing: use only one of them",
        ),
        (
            "model: a/b\nrows_per_sequence: 2",
            "`rows_per_sequence` needs `attention: sdpa or eager`",
        ),
        ("model: a/b\nseed: true", "the recipe's 'seed' is not an integer"),
        ("model: a/b\ntrainer: {save_total_limit: 1}", "trainer.save_total_limit cannot be"),
        (
            "model: a/b\ntrainer: {assistant_only_loss: false}",
            "trainer.assistant_only_loss cannot be",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_name_of_the_setting(tmp_path, content, problem):
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TrainError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(problem)


ALIASES = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))


@pytest.mark.finding(
    13,
    "a recipe is large or deep, or its YAML aliases unfold 9^8-fold",
    "one line says where the recipe has an alias or is too large or too deep",
)
@pytest.mark.parametrize(
    "content",
    [
        f"a0: &a0 [x]\n{ALIASES}\nmodel: *a8\n",
        "model: " + "[" * 100_000,
        "model: a/b\ntrainer: &a {x: *a}",
        "model: tiny\n" + "#" * (1 << 20),
        "model: 2020-13-45",
    ],
    ids=["aliases", "deep", "recursive", "large", "date"],
)
def test_a_recipe_has_bounds(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(TrainError, match=f"^the recipe is not valid YAML, {path}"):
        read_recipe(path)


@pytest.mark.finding(
    13,
    "a line of a training file is gigabytes long, or nested 100,000 levels deep",
    "one line gives the file and the line's number; at most 16 MiB of it are read",
)
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x" * 200, "the line is longer than 100 characters, {}: write one object per line"),
        ("[" * 50, "the line is not valid JSON (Expecting value), {}: write one object per line"),
    ],
    ids=["long", "deep"],
)
def test_a_line_has_bounds(tmp_path, monkeypatch, line, problem):
    monkeypatch.setattr(inputs, "MAX_LINE_CHARACTERS", 100)
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(TrainError) as caught:
        read_rows(path)
    assert str(caught.value) == problem.format(f"{path} line 2")


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 10_000], ids=["deep", "digits"])
def test_json_that_python_cannot_read_is_reported(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(TrainError, match="is not valid JSON"):
        read_rows(path)


def test_half_of_a_surrogate_pair_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(conversation("a\ud83d", "b")))
    with pytest.raises(
        TrainError, match=r"message 1 \(user\) has a character that cannot be saved"
    ):
        read_rows(path)


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Wien"}'},
}


def tool_conversation(**changes):
    """Return a row with a call; the changes are fields of its messages 2 (call) and 3 (result)."""
    call = {"role": "assistant", "content": None, "tool_calls": [CALL], **changes.get("call", {})}
    result = {"role": "tool", "tool_call_id": "c1", "content": "21", **changes.get("result", {})}
    last = {"role": "assistant", "content": "It is 21 degrees."}
    messages = [{"role": "user", "content": "How warm is it in Wien?"}, call, result, last]
    return {"messages": messages, "tools": changes.get("tools", [WEATHER])}


def test_tools_and_calls_are_written_into_the_messages(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(tool_conversation()))
    (row,) = read_rows(path)
    assert [message["role"] for message in row["messages"]] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert '"name": "weather"' in row["messages"][0]["content"]
    assert row["messages"][2]["content"].startswith('<tool_call>{"name": "weather"')
    (row,) = read_rows(path, tool_format="phi-4-mini")
    assert row["messages"][0]["tools"] == '[{"name": "weather", "parameters": {}}]'


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tools": None}, "message 2: call 1 names a tool that the row does not have"),
        ({"tools": "["}, "`tools` is a text that is not JSON"),
        ({"result": {"tool_call_id": "c2"}}, r"message 3 \(tool\) is not the result of a call"),
        ({"result": {"role": "user"}}, "message 3 has the wrong role, .*should be 'tool'"),
        ({"result": {"content": None}}, r"message 3 \(tool\) has no content"),
        ({"call": {"tool_calls": []}}, r"message 2 \(assistant\) has no content"),
        ({"result": {"content": "a\ud83d"}}, r"message 3 \(user\) has a character that cannot"),
    ],
)
def test_a_row_with_wrong_tools_is_refused_with_its_line(tmp_path, changes, problem):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(tool_conversation(**changes)))
    with pytest.raises(TrainError, match=problem) as error:
        read_rows(path)
    assert "rows.jsonl line 1" in str(error.value)


def test_tools_may_be_a_text_of_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(tool_conversation(tools=json.dumps([WEATHER]))))
    assert read_rows(path)[0]["messages"][0]["role"] == "system"


def test_a_missing_recipe_is_reported(tmp_path):
    with pytest.raises(TrainError, match="cannot read the recipe, .*missing.yaml"):
        read_recipe(tmp_path / "missing.yaml")


def test_sections_that_a_recipe_leaves_out_have_defaults(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text("model: phi-4-mini\n")
    recipe = read_recipe(path)
    assert recipe == Recipe(name="short", model="microsoft/Phi-4-mini-instruct")
    assert (recipe.seed, recipe.attention, recipe.samples, recipe.lora) == (0, "auto", 3, None)


@pytest.mark.parametrize("recipe", sorted(TINY_RECIPE.parent.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_read(recipe):
    assert read_recipe(recipe).trainer["learning_rate"] < 0.01


@pytest.mark.parametrize(("name", "hub_id"), MODELS.items())
def test_a_short_name_becomes_a_hub_id(name, hub_id):
    assert resolve_model(name) == resolve_model(name.upper()) == hub_id
    assert resolve_model(hub_id) == hub_id


def test_a_folder_with_a_short_name_stays_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("phi-4-mini").mkdir()
    assert resolve_model("phi-4-mini") == "phi-4-mini"


def test_only_folders_and_the_tiny_model_are_local(tmp_path):
    assert is_local_model("tiny") and is_local_model(str(tmp_path))
    assert not is_local_model("microsoft/Phi-4-mini-instruct")


def test_a_model_is_a_folder_or_a_hub_id(tmp_path):
    check_model("tiny")
    check_model("microsoft/Phi-3.5-mini-instruct")
    with pytest.raises(TrainError, match="or one of phi-3-mini-4k, phi-3.5-mini, phi-4-mini"):
        check_model("phi-5-mini")
    with pytest.raises(TrainError, match="the model folder has no config.json"):
        check_model(str(tmp_path))
    with pytest.raises(TrainError, match="the model folder does not exist"):
        check_model(str(tmp_path / "missing"))


def test_the_model_that_phi3_fetches_is_named_in_the_error():
    with pytest.raises(TrainError, match="run `phi3 finetune --local`, which fetches it"):
        check_model("smollm2")


def test_an_output_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="cannot write the output"):
        check_output(tmp_path / "file" / "out")


def test_the_command_line_prints_one_line_about_a_wrong_input(train_cli, tmp_path):
    finished = train_cli(tmp_path / "out", "--model", str(tmp_path))
    assert finished.returncode == 1
    fix = "give a folder that save_pretrained wrote"
    line = f"train.py: the model folder has no config.json, {tmp_path}: {fix}\n"
    assert (finished.stdout, finished.stderr) == ("", line)
    assert not (tmp_path / "out").exists()


def test_verbose_adds_the_traceback(train_cli, tmp_path):
    finished = train_cli(tmp_path / "out", "--model", str(tmp_path), "--verbose")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr
