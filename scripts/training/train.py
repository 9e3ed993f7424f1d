"""Fine-tune a Phi-3 on conversations, here or as an Azure ML job: the same file, the same recipe.

    python train.py --recipe recipes/tiny-cpu.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out
    python train.py --recipe recipes/lora.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out --model phi-4-mini --epochs 1 --resume
    torchrun --nproc-per-node 8 train.py --recipe recipes/full.yaml --train-file train.jsonl \
        --eval-file test.jsonl --output-dir out

A row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}; the loss
is on the assistant's tokens only: --show-mask prints them. The output folder gets `model/` (Hugging
Face), `mlflow/` (MLflow, ready for a deployment without a scoring script), `metrics.json` and, for the
tiny model, `base/` (as it was before training). They appear when all of them are complete; until then an
earlier result stays, and `checkpoints/` has what --resume goes on from.

Exit codes: 0, 1 (one line on standard error says what, where and what to do), 2 for a wrong command
line, 128 + the signal's number when stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checkpoints
import devices
import distributed
import environment
import options
import stopping
from inputs import TINY, Recipe, Row, TrainError, check_model, check_output, read_recipe, read_rows

if TYPE_CHECKING:
    from trl import SFTConfig


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = options.parse(arguments, (__doc__ or "").split("\n", 1)[0])
    stopping.listen()
    try:
        train(args)
    except stopping.Stopped as stopped:
        say(f"stopped by {signal.Signals(stopped.number).name}, {what_is_kept(args)}")
        return 128 + stopped.number
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        known = isinstance(error, TrainError)
        say(str(error) if known else unexpected(error, args), everywhere=not known)
        return 1
    return 0


def say(line: str, everywhere: bool = False) -> None:
    """Print a line on standard error: the main process's, unless `everywhere`."""
    rank = os.environ.get("RANK", "0")
    if everywhere or rank == "0":
        process = "" if rank == "0" else f"process {rank}: "
        print(f"train.py: {process}{line}", file=sys.stderr, flush=True)


def what_is_kept(args: argparse.Namespace) -> str:
    last = checkpoints.Checkpoints(args.checkpoint_dir, {}).last()
    if last is None:
        return f"{args.output_dir}: run it again; it has only earlier results"
    return f"{last}: run the same command with --resume to go on"


def unexpected(error: Exception, args: argparse.Namespace) -> str:
    """One line for an error that nobody foresaw. Not its text, which might quote the data."""
    if type(error).__name__ == "OutOfMemoryError":
        fix = "lower trainer.per_device_train_batch_size or max_length, or use recipes/lora.yaml"
        return f"the accelerator's memory is full, {args.recipe}: {fix}"
    if isinstance(error, ModuleNotFoundError):
        return f"no package {error.name!r}, {sys.executable}: install what conda.yaml lists"
    if reason := checkpoints.write_failure(error):
        where = getattr(error, "filename", None) or args.output_dir
        return f"{reason}, {where}: make room or correct it, then run again with --resume"
    return f"{type(error).__name__}, {args.recipe}: run again with --verbose for the traceback"


def train(args: argparse.Namespace) -> None:
    """From files to a fine-tuned model. Reads top to bottom like the recipe it follows.

    Raises:
        TrainError: an input is wrong; before anything heavy has started wherever that can be.
    """
    started = time.monotonic()

    # Check the inputs, while it costs nothing ---------------------------------------------------
    recipe = options.override(read_recipe(args.recipe), args)
    check_model(recipe.model)
    train_rows = read_rows(args.train_file, args.rows)
    eval_rows = read_rows(args.eval_file, args.rows)
    if args.show_mask:
        return show_mask(recipe, train_rows, args)
    check_output(args.output_dir)
    place = distributed.place()
    origin = checkpoints.origin(recipe, train_rows, place.size)
    kept = checkpoints.Checkpoints(args.checkpoint_dir, origin)
    if place.main:
        kept.drop_incomplete()
    resumed = find_checkpoint(kept, args.resume)

    # Import the libraries, which takes seconds --------------------------------------------------
    environment.prepare(is_local(recipe.model), args.verbose)
    import models
    import outputs
    import templates
    import torch
    import transformers
    from datasets import Dataset
    from progress import Progress
    from samples import Samples
    from tracking import Tracking
    from trainer import Trainer

    environment.quieten(args.verbose)
    transformers.set_seed(recipe.seed)

    tracking = Tracking(args.output_dir / "mlruns", asdict(recipe), recipe.name)
    with (
        outputs.partial_folder(args.output_dir) as partial,
        tracking if place.main else contextlib.nullcontext(),
    ):
        # Model and tokenizer --------------------------------------------------------------------
        device = devices.choose_device()
        config = make_config(recipe, device, kept.folder, args.recipe, place)
        # The base's loss. Not by trainer.evaluate(): after that, the processes would train apart.
        config.eval_on_start = resumed is None
        model, tokenizer = models.load(recipe, train_rows, device, place, args.recipe)
        if recipe.model == TINY:
            outputs.save_huggingface(model, tokenizer, partial / "base")
        parameters = model.num_parameters()
        torch.set_num_threads(devices.threads_for(parameters, torch.get_num_threads()))

        # Train ----------------------------------------------------------------------------------
        served_template = tokenizer.chat_template
        tokenizer.chat_template = templates.marked(tokenizer, recipe.model)
        templates.check(tokenizer, train_rows[0], tokenizer.chat_template, recipe.model)
        samples = Samples(
            eval_rows, recipe.samples, tokenizer, partial / outputs.SAMPLES, place.main
        )
        trainer = Trainer(
            model=model,
            processing_class=tokenizer,
            args=config,
            train_dataset=Dataset.from_list(train_rows),
            eval_dataset=Dataset.from_list(eval_rows),
            peft_config=models.make_lora(recipe),
            callbacks=[Progress(), tracking, samples],
            checkpoints=kept,
            place=place,
        )
        tokenizer.chat_template = served_template
        trainer.remove_callback(transformers.PrinterCallback)
        say(
            f"training {parameters:,} parameters on {device}, {len(train_rows)} rows, {batch(config)}"
        )
        with stopping.at_a_step():
            result = trainer.train(resume_from_checkpoint=resumed and str(resumed))
        history = trainer.state.log_history
        base_loss = next(entry["eval_loss"] for entry in history if "eval_loss" in entry)
        eval_loss = outputs.last_eval_loss(history) or trainer.evaluate()["eval_loss"]

        # Save -----------------------------------------------------------------------------------
        tuned = distributed.whole_model(trainer)
        if not place.main:
            return
        tuned = models.merged(tuned, recipe, partial / "adapters")
        tuned = tuned.to(device="cpu", dtype=getattr(torch, recipe.save_dtype or "float32"))
        tuned.config.use_cache = True
        outputs.save_huggingface(tuned, tokenizer, partial / "model")
        outputs.save_mlflow(tuned, tokenizer, partial / "mlflow")
        metrics = {
            "seconds": round(time.monotonic() - started, 2),
            "train_seconds": round(result.metrics["train_runtime"], 2),
            "steps": trainer.state.global_step,
            "resumed_from": checkpoints.step_of(resumed) if resumed else None,
            "epochs": config.num_train_epochs,
            "tokens": total_tokens(history),
            "train_loss": mean_loss(history),
            "eval_loss": eval_loss,
            "perplexity": math.exp(eval_loss),
            "base_eval_loss": base_loss,
            "base_perplexity": math.exp(base_loss),
            "train_rows": len(train_rows),
            "eval_rows": len(eval_rows),
            "model": Path(recipe.model).name if Path(recipe.model).is_dir() else recipe.model,
            "parameters": parameters,
            "device": device,
            "attention": model.config._attn_implementation,
            "processes": place.size,
            "threads": torch.get_num_threads(),
            "seed": recipe.seed,
            "recipe": recipe.name,
            "versions": outputs.versions(),
        }
        outputs.write_metrics(metrics, partial / outputs.METRICS)
        outputs.describe(
            partial,
            recipe=recipe,
            metrics=metrics,
            train_file=args.train_file,
            history=history,
            samples=samples.kept,
        )
        # Half of a new result beside half of an old one is neither.
        with stopping.put_off():
            outputs.publish(partial, args.output_dir)
            kept.remove()
        tracking.log(metrics, trainer.state.global_step)
        tracking.attach(args.output_dir / name for name in outputs.SHOWN)
    say(
        f"done in {time.monotonic() - started:.0f} s, {args.output_dir}: "
        f"train loss {metrics['train_loss']:.3f}, eval loss {metrics['eval_loss']:.3f}"
    )


def is_local(model: str) -> bool:
    return model == TINY or Path(model).is_dir()


def find_checkpoint(kept: checkpoints.Checkpoints, resume: bool) -> Path | None:
    """The checkpoint to go on from, if that is wanted and there is one; says which.

    Raises:
        TrainError: it is of another run.
    """
    if resume:
        found = kept.to_resume()
        say(
            f"going on from {found}"
            if found
            else f"no checkpoint in {kept.folder}: starting afresh"
        )
        return found
    if found := kept.last():
        say(
            f"starting afresh; --resume would go on from {found}, which the next checkpoint replaces"
        )
    return None


def show_mask(recipe: Recipe, rows: list[Row], args: argparse.Namespace) -> None:
    """Print the first row as the model will see it, and which of its tokens are trained on."""
    environment.prepare(is_local(recipe.model), args.verbose)
    import models
    import templates

    environment.quieten(args.verbose)
    tokenizer = models.load_tokenizer(recipe, rows, args.recipe)
    template = templates.marked(tokenizer, recipe.model)
    print(templates.shown(tokenizer, rows[0], template), flush=True)
    templates.check(tokenizer, rows[0], template, recipe.model)


def make_config(
    recipe: Recipe,
    device: str,
    folder: Path,
    path: Path,
    place: distributed.Place = distributed.ALONE,
) -> SFTConfig:
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
                "eval_strategy": "epoch",
                "dataloader_pin_memory": device != "cpu",
                **recipe.trainer,
                **distributed.arguments(recipe, place, device),
            },
            **devices.PRECISIONS[device],
            output_dir=str(folder),
            seed=recipe.seed,
            assistant_only_loss=True,
            save_strategy="steps",
            save_total_limit=2,
            # Otherwise a loss that is no number is logged as the mean of those before it.
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        )
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].replace("SFTConfig.__init__() got an ", "")
        fix = "see the settings of TRL's SFTConfig"
        raise TrainError(f"the recipe's `trainer` is wrong ({reason})", path, fix) from error


def batch(config: SFTConfig) -> str:
    """How many sequences the optimizer sees at a time, and what that is made of."""
    each, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    total = each * accumulation * config.world_size
    return f"{total} a step (batch {each} x accumulation {accumulation} x processes {config.world_size})"


def total_tokens(history: list[dict[str, Any]]) -> int:
    """Tokens trained on, questions included, padding not; TRL counts anew when a run goes on."""
    total = before = 0.0
    for count in (entry["num_tokens"] for entry in history if "num_tokens" in entry):
        total += count - before if count >= before else count
        before = count
    return int(total)


def mean_loss(history: list[dict[str, Any]]) -> float:
    """The mean over all steps, also of those before a run went on."""
    total = before = 0.0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before


if __name__ == "__main__":
    code = main()
    distributed.leave()
    sys.exit(code)
