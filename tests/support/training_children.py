"""The child processes of the GPU training benchmark: train.py and TRL's sft.py, and their inputs."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

TRAINING = Path(__file__).resolve().parents[2] / "scripts" / "training"
WORDS = 40  # so few that each becomes one token
FRAME = 12  # tokens of a conversation that are not words of its answer
ROWS = 512  # more than the steps take, since the last step of an epoch would be shorter
TIMEOUT = 1800  # seconds of a child process


@dataclass(frozen=True)
class Size:
    """The size of the model and of the measurement.

    Attributes:
        shape: settings of Phi3Config.
        sequence: tokens per sequence.
        steps: steps of the optimizer; the first one is a warm-up and is not measured.
        limits: the largest allowed ratio of our time per token to the peer's, by both names.
    """

    shape: Mapping[str, int]
    sequence: int
    steps: int
    limits: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Speed:
    """What a child process reported.

    Attributes:
        tokens: tokens per second after the first step.
        mfu: model FLOPs utilization as train.py reports it, or None.
        memory: peak of the memory in GB as train.py reports it, or None.
    """

    tokens: float
    mfu: float | None = None
    memory: float | None = None


class ChildError(Exception):
    """A child process failed; the text is the end of what it printed."""


# -- what is trained ---------------------------------------------------------------------------------


def make_inputs(folder: Path, size: Size, device: str) -> None:
    """Write a model with random weights in bf16, and conversations that fill the sequences.

    The files are `model/`, `rows/train.jsonl` and `test.jsonl`.
    """
    import torch
    import transformers

    sys.path.insert(0, str(TRAINING))
    import tiny

    rows = [conversation(index, size.sequence) for index in range(ROWS)]
    (folder / "rows").mkdir()
    write_rows(folder / "rows" / "train.jsonl", rows)
    write_rows(folder / "test.jsonl", rows[-1:])
    texts = (message["content"] for row in rows for message in row["messages"])
    tokenizer = tiny.make_tokenizer(texts, size.shape["vocab_size"], size.sequence)
    end = tokenizer.convert_tokens_to_ids(tiny.END_OF_TEXT)
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.Phi3Config(**size.shape, **ids), dtype=torch.bfloat16
        )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    del model
    if device != "cpu":
        torch.cuda.empty_cache()


def conversation(index: int, sequence: int) -> dict[str, Any]:
    """Return a conversation of a half, a quarter, an eighth or an eighth of a sequence, in turns."""
    generator = random.Random(index)
    tokens = sequence // (2, 4, 8, 8)[index % 4]
    words = [f"w{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(WORDS)]
    answer = " ".join(generator.choices(words, k=max(1, tokens - FRAME)))
    question = generator.choice(words)
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# -- train.py ----------------------------------------------------------------------------------------


def read_recipe(name: str, checkpointing: bool | None = None) -> dict[str, Any]:
    """Return a recipe of the product, with another `gradient_checkpointing` if one is given."""
    text = (TRAINING / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    recipe: dict[str, Any] = yaml.safe_load(text)
    if checkpointing is not None:
        recipe["trainer"]["gradient_checkpointing"] = checkpointing
    return recipe


def run_product(recipe: dict[str, Any], folder: Path, size: Size, device: str) -> Speed:
    """Train with train.py and a recipe, and return what its metrics.json says.

    The recipe's epochs become steps, and it is not evaluated on the way; neither changes the speed.
    """
    out = folder / "out"
    recipe = {key: value for key, value in recipe.items() if key != "early_stopping"}
    evaluation = ("num_train_epochs", "eval_steps", "load_best_model_at_end")
    trainer = {key: value for key, value in recipe["trainer"].items() if key not in evaluation}
    trainer |= {"max_steps": size.steps, "max_length": size.sequence, "eval_strategy": "no"}
    trainer |= {"logging_steps": 1, "save_steps": size.steps + 1}
    file = folder / "recipe.yaml"
    file.write_text(
        yaml.safe_dump(recipe | {"model": str(folder / "model"), "samples": 0, "trainer": trainer}),
        encoding="utf-8",
    )
    command = [str(TRAINING / "train.py"), "--recipe", str(file), "--output-dir", str(out)]
    command += ["--train-file", str(folder / "rows" / "train.jsonl")]
    command += ["--eval-file", str(folder / "test.jsonl")]
    run_child(command, folder, device)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return Speed(metrics["tokens_per_second"], metrics["mfu"], metrics["peak_memory_gb"])


# -- TRL's script ------------------------------------------------------------------------------------


def sft_script() -> Path:
    """Return the path of TRL's script for supervised fine-tuning, trl/scripts/sft.py."""
    spec = find_spec("trl")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "scripts" / "sft.py"


def options_like(recipe: dict[str, Any], device: str) -> list[str]:
    """Return options of TRL's script that train what a recipe of the product trains.

    Batch, packing, checkpointing, optimizer, loss, adapters and data types are the recipe's. The
    attention is that of TRL's defaults.
    """
    trainer, lora = recipe["trainer"], recipe.get("lora")
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "packing_strategy")
    keys += ("gradient_checkpointing", "optim", "learning_rate")
    options = [word for key in keys for word in (f"--{key}", str(trainer[key]))]
    options += ["--packing", "true", "--assistant_only_loss", "true"]
    options += ["--bf16", str(device != "cpu").lower()]
    # The frozen weights under adapters are bf16 on a GPU, all others float32.
    options += ["--dtype", "bfloat16" if lora and device != "cpu" else "float32"]
    if lora:
        options += ["--use_peft", "true", "--lora_r", str(lora["r"])]
        options += ["--lora_alpha", str(lora["alpha"]), "--lora_dropout", str(lora["dropout"])]
        options += ["--lora_target_modules", *lora["target_modules"]]
    return options


def tutorials_options() -> list[str]:
    """Return options of TRL's script for the recipe of the tutorials' fine_tune.py.

    That is: bf16 weights, eager attention, gradient checkpointing, 4 sequences per step, packing that
    lets conversations see each other, and a loss from the logits of all tokens.
    Source: "Fine-Tune and Integrate Custom Phi-3 Models with Prompt flow".
    """
    options = ["--dtype", "bfloat16", "--bf16", "true", "--attn_implementation", "eager"]
    options += ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]
    options += ["--gradient_checkpointing", "true", "--packing", "true"]
    options += ["--packing_strategy", "wrapped", "--optim", "adamw_torch", "--loss_type", "nll"]
    return [*options, "--learning_rate", "5e-6", "--lr_scheduler_type", "cosine"]


def run_sft_script(options: Sequence[str], folder: Path, size: Size, device: str) -> Speed:
    """Train with TRL's script, and return the speed after its first step.

    The script prints its tokens at each step, and this process adds the time. `train_runtime`, which it
    prints at the end, includes the first step, which loads kernels and is a large part of so few steps.
    """
    command = [str(sft_script()), "--model_name_or_path", str(folder / "model")]
    command += ["--dataset_name", str(folder / "rows"), "--output_dir", str(folder / "out")]
    command += ["--max_steps", str(size.steps), "--max_length", str(size.sequence)]
    command += ["--logging_steps", "1", "--disable_tqdm", "true", "--report_to", "none"]
    command += ["--save_strategy", "no", "--use_cpu", str(device == "cpu").lower(), *options]
    steps, runtime = [], 0.0
    for second, line in run_child(command, folder, device):
        if line.startswith("{'"):
            log = ast.literal_eval(line)
            if "train_runtime" in log:
                runtime = float(log["train_runtime"])
            elif "num_tokens" in log:
                steps.append((second, float(log["num_tokens"])))
    if len(steps) < 2 or not runtime:
        raise ChildError(f"{sft_script()} printed no speed")
    (first_second, first_tokens), (last_second, last_tokens) = steps[0], steps[-1]
    return Speed((last_tokens - first_tokens) / (last_second - first_second))


# -- child processes ---------------------------------------------------------------------------------


def run_child(command: Sequence[str], folder: Path, device: str) -> list[tuple[float, str]]:
    """Run a Python script to its end.

    Args:
        command: script and its arguments.
        folder: working folder; the caches of the libraries are in it.
        device: "cuda", or "cpu" for one thread.

    Returns:
        The lines of its standard output, each with the second at which it came.

    Raises:
        ChildError: the script failed.
    """
    variables = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    variables |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    variables |= {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    if device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    errors, lines = folder / "stderr.txt", []
    with (
        errors.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=variables,
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            lines.append((time.perf_counter(), line.strip()))
        code = child.wait(TIMEOUT)
    if code:
        raise ChildError(errors.read_text(encoding="utf-8", errors="replace")[-1500:].strip())
    return lines
