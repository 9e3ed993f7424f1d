"""`phi3 finetune --local`: the command that it runs, the metrics, and the table at the end."""

import ast
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.files.ownership import MARKER_FILE, begin_writing, read_marker
from phi3_ops.training import local
from phi3_ops.training.local import (
    GENERAL_FILE,
    OUTPUT_NAMES,
    TrainingMetrics,
    base_and_tuned_table,
    default_recipe,
    finetune_locally,
    recipe_file,
    run_child,
)
from polling import wait_until

METRICS = TrainingMetrics(
    steps=8,
    epochs=2.0,
    last_train_loss=2.5,
    eval_loss=1.678,
    perplexity=5.35,
    base_eval_loss=7.2128,
    base_perplexity=1356.7,
)


def table_lines(folder, metrics=METRICS):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(base_and_tuned_table(folder, metrics))
    return [line.strip() for line in capture.get().splitlines()]


def test_the_table_has_the_rows_of_several_files(tmp_path):
    file = {"file": "a.jsonl", "rows": 1000, "used": 30, "weight": 3}
    text = [
        " ".join(line.split())
        for line in table_lines(tmp_path, replace(METRICS, train_files=[file]))
    ]
    assert "rows of a.jsonl 30 of 1,000" in text


def test_the_table_has_the_loss_and_three_answers_of_the_general_chats(tmp_path):
    rows = [
        {"question": f"q{n}", "reference": "r", "base_answer": "b", "tuned_answer": "t"}
        for n in range(40)
    ]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = replace(METRICS, general_rows=40, base_general_loss=1.5, general_loss=1.75)
    text = [" ".join(line.split()) for line in table_lines(tmp_path, metrics)]
    assert "loss on 40 general chats equal 1.500 1.750" in text
    assert [line for line in text if line.endswith("r b t")] == [
        "q0 r b t",
        "q13 r b t",
        "q26 r b t",
    ]


@pytest.fixture(autouse=True)
def row_files(tmp_path):
    """The files of rows that the tests name."""
    for name in "ab":
        (tmp_path / name).touch()


def test_losses_and_answers_of_base_and_tuned_are_side_by_side(tmp_path):
    answers = [
        ("A?", "[b]"),
        ("B?", "x" * 99),
        ("A?", "a"),
        ("B?", "wrong"),
        ("A?", "a"),
        ("B?", "c"),
    ]
    rows = [
        {"epoch": n // 2, "question": question, "reference": question[0].lower(), "answer": answer}
        for n, (question, answer) in enumerate(answers)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [line.split() for line in table_lines(tmp_path)]
    assert ["evaluation", "loss", "lower", "7.213", "1.678"] in lines
    assert ["perplexity", "lower", "1,356.700", "5.350"] in lines
    assert [
        "exact",
        "answers",
        "of",
        "2",
        "samples,",
        "in",
        "other",
        "words",
        "2",
        "0",
        "1",
    ] in lines
    assert ["A?", "a", "[b]", "a"] in lines and ["B?", "b", "x" * 59 + "…", "c"] in lines


def test_preferences_have_their_margin_and_accuracy_in_the_table(tmp_path):
    metrics = replace(
        METRICS, perplexity=None, base_perplexity=None, reward_margin=1.5, reward_accuracy=0.95
    )
    lines = [line.split() for line in table_lines(tmp_path, metrics)]
    assert ["reward", "margin", "higher", "0.000", "1.500"] in lines
    assert ["chosen", "answer", "preferred", "higher", "0.950"] in lines
    assert not any(line[:1] == ["perplexity"] for line in lines)


def test_without_samples_the_table_has_the_losses(tmp_path):
    text = "\n".join(table_lines(tmp_path))
    assert "1.678" in text and "samples" not in text


class TestRecipeFile:
    def test_a_shipped_recipe(self):
        assert recipe_file("lora") == paths.TRAINING / "recipes" / "lora.yaml"

    def test_a_file(self, tmp_path):
        (tmp_path / "own.yaml").touch()
        assert recipe_file(str(tmp_path / "own.yaml")) == tmp_path / "own.yaml"

    def test_neither(self):
        files = (paths.TRAINING / "recipes").glob("*.yaml")
        names = ", ".join(sorted(path.stem for path in files))
        assert "lora, " in names
        message = f"the recipe 'none' does not exist. Use {names}, or give"
        with pytest.raises(OpsError, match=message):
            recipe_file("none")


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (None, "tiny-cpu"),
        ("tiny", "tiny-cpu"),
        ("smollm2", "smollm2-cpu"),
        ("file.gguf", "smollm2-cpu"),
    ],
)
def test_the_recipe_follows_from_the_model(model, recipe):
    assert default_recipe(model) == recipe


class TestFinetuneLocally:
    @pytest.fixture
    def child(self, monkeypatch):
        """What would have been run: command and environment. It writes `files` and returns `code`."""
        calls = type("Calls", (list,), {"code": 0, "files": {}})()

        def run(command, environment):
            calls.append((command, environment))
            for path, text in calls.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return calls.code

        monkeypatch.setattr(local, "run_child", run)
        return calls

    def test_one_process(self, child, tmp_path):
        child.files = {tmp_path / "metrics.json": json.dumps({**asdict(METRICS), "seed": 1})}
        (tmp_path / "c").touch()
        files = (tmp_path / "a", tmp_path / "b", tmp_path)
        more = [tmp_path / "c"]
        metrics = finetune_locally(*files, more_train_files=more, extra=["--seed", "3"])
        assert metrics == METRICS
        ((command, environment),) = child
        assert command[:2] == [sys.executable, str(paths.TRAINING / "train.py")]
        assert command[-2:] == ["--seed", "3"]
        first = command.index("--train-file")
        expected = ["--train-file", str(files[0]), "--train-file", str(more[0]), "--eval-file"]
        assert command[first : first + 5] == expected
        assert str(paths.TRAINING / "recipes" / "tiny-cpu.yaml") in command
        assert environment["OMP_WAIT_POLICY"] == os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

    @pytest.mark.parametrize("by_recipe", [False, True])
    def test_a_short_name_becomes_the_folder_of_the_cache(
        self, child, tmp_path, monkeypatch, by_recipe
    ):
        monkeypatch.setattr(local, "resolve_model", lambda name: tmp_path / "cache" / name)
        child.files = {tmp_path / "metrics.json": json.dumps(asdict(METRICS))}
        model, recipe = "smollm2", "tiny-cpu"
        if by_recipe:
            (tmp_path / "own.yaml").write_text("model: smollm2\n")
            model, recipe = None, str(tmp_path / "own.yaml")
        files = (tmp_path / "a", tmp_path / "b", tmp_path)
        finetune_locally(*files, recipe=recipe, model=model, extra=["--seed", "3"])
        ((command, _),) = child
        assert command[-4:] == [
            "--model",
            (tmp_path / "cache" / "smollm2").as_posix(),
            "--seed",
            "3",
        ]

    @pytest.mark.parametrize("has_model", [False, True])
    def test_an_adapter_needs_its_base_and_a_model_does_not(
        self, child, tmp_path, monkeypatch, has_model
    ):
        monkeypatch.setattr(local, "resolve_model", lambda name: Path("cache") / name)
        child.files = {tmp_path / "metrics.json": json.dumps(asdict(METRICS))}
        if has_model:
            (tmp_path / "run" / "model").mkdir(parents=True)
            (tmp_path / "run" / "model" / "config.json").touch()
        files = (tmp_path / "a", tmp_path / "b", tmp_path)
        finetune_locally(*files, recipe="smollm2-dpo", start_from=tmp_path / "run")
        words = child[0][0]
        assert words[words.index("--from") + 1] == str(tmp_path / "run")
        assert ("cache/smollm2" in words) is not has_model

    def test_a_start_needs_a_recipe(self, child, tmp_path):
        with pytest.raises(OpsError, match="--from needs a recipe"):
            finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path, start_from=tmp_path)
        assert not child

    def test_another_model_is_passed_on(self, child, tmp_path):
        child.files = {tmp_path / "metrics.json": json.dumps(asdict(METRICS))}
        finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path, model="phi-3.5-mini")
        assert child[0][0][-2:] == ["--model", "phi-3.5-mini"]

    @pytest.mark.parametrize("content", ["- a", "model: [", "{}"])
    def test_train_py_says_what_is_wrong_with_a_recipe(self, child, tmp_path, content):
        child.code = 1
        (tmp_path / "own.yaml").write_text(content)
        with pytest.raises(OpsError, match="exit code 1"):
            finetune_locally(
                tmp_path / "a", tmp_path / "b", tmp_path, recipe=str(tmp_path / "own.yaml")
            )
        assert "--model" not in child[0][0]

    def test_several_processes(self, child, tmp_path):
        child.files = {tmp_path / "metrics.json": json.dumps(asdict(METRICS))}
        finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path, processes=2)
        ((command, _),) = child
        assert "torch.distributed.run" in command and "--nproc-per-node=2" in command

    def test_a_failure(self, child, tmp_path):
        child.code = 3
        with pytest.raises(OpsError, match="exit code 3. The reason is printed above"):
            finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path)

    @pytest.mark.finding(
        1,
        "`phi3 finetune --local --output-dir` with a folder that holds a foreign model",
        "the folder is not replaced",
    )
    @pytest.mark.parametrize("name", ["metrics.json", "model/notes.txt", "checkpoints/a/b"])
    def test_a_file_of_others_is_not_replaced(self, child, tmp_path, name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(OpsError, match=f"{name} exists, and phi3 did not write it"):
            finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path)
        assert not child and not (tmp_path / MARKER_FILE).exists()

    def test_its_own_files_are_replaced_even_after_a_kill(self, child, tmp_path):
        child.files = {
            tmp_path / "metrics.json": json.dumps(asdict(METRICS)),
            tmp_path / "model" / "config.json": "{}",
            tmp_path / "mlruns" / "run": "",
        }
        finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path)
        files = {path.relative_to(tmp_path).as_posix() for path in child.files}
        assert read_marker(tmp_path).files == files and not read_marker(tmp_path).unfinished
        begin_writing(tmp_path, OUTPUT_NAMES)  # a run that was killed
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "half").touch()
        (tmp_path / "model" / "openvino-fp32-0123456789abcdef").mkdir()
        (tmp_path / "model" / "openvino-fp32-0123456789abcdef" / "serving.json").touch()
        finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path)
        assert len(child) == 2 and not read_marker(tmp_path).unfinished

    def test_experiments_of_others_are_not_listed(self, child, tmp_path):
        (tmp_path / "mlruns").mkdir()
        (tmp_path / "mlruns" / "theirs").touch()
        child.files = {tmp_path / "metrics.json": json.dumps(asdict(METRICS))}
        finetune_locally(tmp_path / "a", tmp_path / "b", tmp_path)
        assert read_marker(tmp_path).files == {"metrics.json"}

    def test_every_name_that_train_py_replaces_is_known(self):
        text = (paths.TRAINING / "outputs.py").read_text(encoding="utf-8")
        names = {
            node.targets[0].id: node.value
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        replaced = [getattr(name, "value", None) for name in names["RESULT_NAMES"].elts]
        assert {name for name in replaced if name} <= set(OUTPUT_NAMES)
        curve, samples, metrics = "loss.png", "samples.jsonl", "metrics.json"
        assert f'CURVE, SAMPLES, METRICS = "{curve}", "{samples}", "{metrics}"' in text
        assert f'GENERAL = "{GENERAL_FILE}"' in text
        assert {curve, samples, metrics, GENERAL_FILE} <= set(OUTPUT_NAMES)


class TestRunChild:
    def test_its_exit_code(self):
        assert run_child([sys.executable, "-c", "raise SystemExit(7)"], dict(os.environ)) == 7

    def test_an_interrupt_ends_it(self, tmp_path):
        started = tmp_path / "started"
        child = (
            "import os, pathlib, time\n"
            f"pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
            "time.sleep(600)"
        )
        program = (
            "import os, sys\n"
            "from phi3_ops.training.local import run_child\n"
            f"run_child([sys.executable, '-c', {child!r}], dict(os.environ))"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: started.exists() and started.read_text())
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=60)
        assert "KeyboardInterrupt" in errors
        assert parent.returncode != 0
        with pytest.raises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)
