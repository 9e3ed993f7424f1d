"""Fine-tune a Phi-3 on conversations, here or as an Azure ML job: the same file, the same recipe.

    python train.py --recipe recipes/tiny-cpu.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out
    python train.py --recipe recipes/lora.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out --model microsoft/Phi-3.5-mini-instruct --epochs 1

A row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}; the loss
is on the assistant's tokens only. The output folder gets `model/` (Hugging Face), `mlflow/` (MLflow,
ready for a deployment without a scoring script), `metrics.json` and, for the tiny model, `base/` (as
it was before training). They appear when all of them are complete; until then an earlier result stays.

Exit codes: 0, 1 (one line on standard error says what, where and what to do), 2 for a wrong command
line, 128 + the signal's number when stopped.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from inputs import (
    TINY,
    Recipe,
    Row,
    TrainError,
    check_model,
    check_output,
    read_recipe,
    read_rows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

# Phi-3 fuses its projections: q_proj and gate_proj of other models do not exist.
PHI3_LORA_MODULES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# Below this, a second thread costs more in waiting than it computes.
ONE_THREAD_PARAMETERS = 10_000_000
# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h, in bytes; 32 MiB is the latter's maximum.
MALLOC = {-1: 512 * 2**20, -3: 32 * 2**20}
PRECISIONS: dict[str, dict[str, Any]] = {
    "cpu": {"use_cpu": True, "bf16": False, "fp16": False},
    "cuda": {"use_cpu": False, "bf16": True, "fp16": False},
    "cuda without bf16": {"use_cpu": False, "bf16": False, "fp16": True},
}


class Stopped(BaseException):
    """SIGINT or SIGTERM: not an Exception, so that no library takes it for its own."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        train(args)
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        say(f"stopped by {name}, {args.output_dir}: run it again; it has only earlier results")
        return 128 + stopped.number
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        say(str(error) if isinstance(error, TrainError) else unexpected(error, args))
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    description = (__doc__ or "").split("\n", 1)[0]
    parser = argparse.ArgumentParser(description=description, prog="train.py")
    parser.add_argument(
        "--recipe", type=Path, required=True, help="YAML, such as recipes/lora.yaml"
    )
    parser.add_argument("--train-file", type=Path, required=True, help="JSONL with `messages`")
    parser.add_argument("--eval-file", type=Path, required=True, help="JSONL, for the eval loss")
    parser.add_argument("--output-dir", type=Path, required=True, help="gets model/, mlflow/, …")
    parser.add_argument("--model", help="a model's folder or hub id, instead of the recipe's")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--epochs", type=positive(float), help="instead of the recipe's")
    parser.add_argument("--rows", type=positive(int), help="use the first N rows of each file")
    parser.add_argument(
        "--verbose", action="store_true", help="the libraries' messages, tracebacks"
    )
    return parser.parse_args(arguments)


def positive(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return convert


def stop(number: int, frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the clearing up after the first.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def say(line: str) -> None:
    print(f"train.py: {line}", file=sys.stderr, flush=True)


def unexpected(error: Exception, args: argparse.Namespace) -> str:
    """One line for an error that nobody foresaw. Not its text, which might quote the data."""
    if type(error).__name__ == "OutOfMemoryError":
        fix = "lower trainer.per_device_train_batch_size or max_length, or use recipes/lora.yaml"
        return f"the accelerator's memory is full, {args.recipe}: {fix}"
    if isinstance(error, ModuleNotFoundError):
        return f"no package {error.name!r}, {sys.executable}: install what conda.yaml lists"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or args.output_dir
        return f"{error.strerror.lower()}, {where}: make room or correct it, then run again"
    return f"{type(error).__name__}, {args.recipe}: run again with --verbose for the traceback"


def train(args: argparse.Namespace) -> None:
    """From files to a fine-tuned model. Reads top to bottom like the recipe it follows.

    Raises:
        TrainError: an input is wrong; before anything heavy has started wherever that can be.
    """
    started = time.monotonic()

    # Check the inputs, while it costs nothing ---------------------------------------------------
    recipe = with_overrides(read_recipe(args.recipe), args)
    check_model(recipe.model)
    train_rows = read_rows(args.train_file, args.rows)
    eval_rows = read_rows(args.eval_file, args.rows)
    check_output(args.output_dir)

    # Import the libraries, which takes seconds --------------------------------------------------
    keep_memory()
    prepare_environment(recipe, args.verbose)
    import outputs
    import torch
    import transformers
    from datasets import Dataset
    from progress import Progress, Tracking
    from trl import SFTTrainer

    quieten(args.verbose)
    transformers.set_seed(recipe.seed)

    with outputs.partial_folder(args.output_dir) as partial:
        # Model and tokenizer --------------------------------------------------------------------
        device = choose_device()
        if recipe.model == TINY:
            model, tokenizer = make_tiny(recipe, train_rows, args.recipe)
            outputs.save_huggingface(model, tokenizer, partial / "base")
        else:
            model, tokenizer = load(recipe, device)
        use_trainable_template(tokenizer, recipe.model)
        parameters = model.num_parameters()
        torch.set_num_threads(threads_for(parameters, torch.get_num_threads()))

        # Train ----------------------------------------------------------------------------------
        config = make_config(recipe, device, partial / "trainer", args.recipe)
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            args=config,
            train_dataset=Dataset.from_list(train_rows),
            eval_dataset=Dataset.from_list(eval_rows),
            peft_config=make_lora(recipe),
            callbacks=[Progress(), Tracking()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        say(f"training {parameters:,} parameters on {device}, {len(train_rows)} rows")
        result = trainer.train()
        evaluation = trainer.evaluate()

        # Save -----------------------------------------------------------------------------------
        tuned = trainer.model.merge_and_unload() if recipe.lora is not None else trainer.model
        tuned = tuned.to(device="cpu", dtype=getattr(torch, recipe.save_dtype or "float32"))
        tuned.config.use_cache = True
        outputs.save_huggingface(tuned, tokenizer, partial / "model")
        outputs.save_mlflow(tuned, tokenizer, partial / "mlflow")
        metrics = {
            "seconds": round(time.monotonic() - started, 2),
            "train_seconds": round(result.metrics["train_runtime"], 2),
            "steps": trainer.state.global_step,
            "epochs": config.num_train_epochs,
            "tokens": total_tokens(trainer.state.log_history),
            "train_loss": result.training_loss,
            "eval_loss": evaluation["eval_loss"],
            "train_rows": len(train_rows),
            "eval_rows": len(eval_rows),
            "model": Path(recipe.model).name if Path(recipe.model).is_dir() else recipe.model,
            "parameters": parameters,
            "device": device,
            "threads": torch.get_num_threads(),
            "seed": recipe.seed,
            "recipe": recipe.name,
            "versions": outputs.versions(),
        }
        outputs.write_metrics(metrics, partial / "metrics.json")
        publish_whole(partial, args.output_dir)
    say(
        f"done in {time.monotonic() - started:.0f} s, {args.output_dir}: "
        f"train loss {metrics['train_loss']:.3f}, eval loss {metrics['eval_loss']:.3f}"
    )


def with_overrides(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says otherwise."""
    trainer = dict(recipe.trainer)
    if args.epochs is not None:
        trainer["num_train_epochs"] = args.epochs
    model = recipe.model if args.model is None else args.model
    seed = recipe.seed if args.seed is None else args.seed
    return replace(recipe, trainer=trainer, model=model, seed=seed)


def prepare_environment(recipe: Recipe, verbose: bool) -> None:
    """Set what the libraries read while they are imported."""
    # Threads that spin while they wait slow a step tenfold as soon as anything else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Training waits while a tracking server is asked again; the default is minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    if recipe.model == TINY or Path(recipe.model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not verbose:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        warnings.simplefilter("ignore")


def quieten(verbose: bool) -> None:
    """Leave standard error to this script, unless asked: some libraries log what they are given."""
    if verbose:
        return
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "datasets", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def keep_memory() -> None:
    """Have glibc keep what a step frees for the next one: a third off the tiny model's training.

    By default it hands large blocks back to the system, which clears them anew at every step.
    Source: mallopt(3).
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "mallopt"):
        for parameter, size in MALLOC.items():
            library.mallopt(parameter, size)


def choose_device() -> str:
    """A key of PRECISIONS: what this machine has."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # V100 and older only emulate bf16, slowly.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "cuda" if native else "cuda without bf16"


def threads_for(parameters: int, available: int) -> int:
    return 1 if parameters < ONE_THREAD_PARAMETERS else available


def make_tiny(
    recipe: Recipe, rows: list[Row], path: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The tiny base: random weights, and a tokenizer that has seen the training rows only."""
    import tiny

    shape = dict(recipe.tiny)
    texts = (message["content"] for row in rows for message in row["messages"])
    window = shape["max_position_embeddings"]
    try:
        tokenizer = tiny.make_tokenizer(texts, shape.pop("vocab_size"), window)
        return tiny.make_model(tokenizer, shape), tokenizer
    except (TypeError, ValueError) as error:
        fix = "compare with recipes/tiny-cpu.yaml"
        raise TrainError("the `tiny` settings make no Phi-3", path, fix) from error


def load(recipe: Recipe, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A base model from a folder or the hub. Its code is transformers', never the model's own."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # All weights trained: float32, since AdamW's small steps vanish in bf16's 8 bits. Under LoRA
    # they stay as they are, and only the adapters (which PEFT keeps in float32) are trained.
    frozen = recipe.lora is not None and device == "cuda"
    try:
        tokenizer = AutoTokenizer.from_pretrained(recipe.model, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            recipe.model,
            dtype=torch.bfloat16 if frozen else torch.float32,
            attn_implementation=recipe.attention,
            trust_remote_code=False,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        fix = "give a complete folder, or a hub id that this machine can reach; see --verbose"
        raise TrainError("cannot load the model", recipe.model, fix) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def use_trainable_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Have a chat template in which TRL can tell the assistant's tokens from the others.

    TRL knows templates by their exact text. One of Phi-3's that only looks different gives way to
    TRL's; any other is refused, rather than training on the questions too.

    Raises:
        TrainError: there is no such template for this model.
    """
    from trl.chat_template_utils import (
        get_training_chat_template,
        phi3_5_chat_template,
        phi3_chat_template,
    )

    if tokenizer.chat_template is not None:
        try:
            get_training_chat_template(tokenizer)
        except ValueError:
            own = renderings(tokenizer, tokenizer.chat_template)
            for template in (phi3_chat_template, phi3_5_chat_template):
                if renderings(tokenizer, template) == own:
                    tokenizer.chat_template = template
                    return
        else:
            return
    fix = "use a Phi-3 instruct model, or mark the answers with {% generation %} in its template"
    raise TrainError("its chat template does not show what the assistant says", model, fix)


def renderings(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """What a template makes of the kinds of conversation that there are."""
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    again = [*turns, *turns[1:]]
    cases = [
        (turns[1:], False),
        (turns, False),
        (again, False),
        (turns[:2], True),
        (again[:-1], True),
    ]
    return [
        str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=prompt, chat_template=template
            )
        )
        for turns, prompt in cases
    ]


def make_config(recipe: Recipe, device: str, folder: Path, path: Path) -> SFTConfig:
    """TRL's settings: the recipe's, plus those that are not a matter of taste.

    Raises:
        TrainError: the recipe has a setting that TRL does not know, or a value it does not take.
    """
    from trl import SFTConfig

    try:
        return SFTConfig(
            **{
                "logging_steps": 10,
                "logging_first_step": True,
                "dataloader_pin_memory": device != "cpu",
                **recipe.trainer,
            },
            **PRECISIONS[device],
            output_dir=str(folder),
            seed=recipe.seed,
            assistant_only_loss=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].replace("SFTConfig.__init__() got an ", "")
        fix = "see the settings of TRL's SFTConfig"
        raise TrainError(f"the recipe's `trainer` is wrong ({reason})", path, fix) from error


def make_lora(recipe: Recipe) -> Any:
    """PEFT's settings, or None to train all weights."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora.get("r", 16),
        lora_alpha=recipe.lora.get("alpha", 32),
        lora_dropout=recipe.lora.get("dropout", 0.0),
        target_modules=recipe.lora.get("target_modules", PHI3_LORA_MODULES),
    )


def total_tokens(history: list[dict[str, float]]) -> int:
    """Tokens trained on, questions included, padding not."""
    return int(max((entry.get("num_tokens", 0) for entry in history), default=0))


def publish_whole(partial: Path, out: Path) -> None:
    """Publish, with signals put off: half of a new result beside half of an old one is neither."""
    from outputs import publish

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    publish(partial, out)
    for number, handler in before.items():
        signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
