"""Fine-tune a Phi-3 on conversations or preferences, on this machine and in an Azure ML job.

    python train.py --recipe recipes/tiny-cpu.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out
    python train.py --recipe recipes/lora.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out --model phi-4-mini --epochs 1 --resume
    torchrun --nproc-per-node 8 train.py --recipe recipes/full.yaml --train-file train.jsonl \
        --eval-file test.jsonl --output-dir out
    python train.py --recipe recipes/dpo.yaml --from out --train-file preferences.jsonl \
        --eval-file test-preferences.jsonl --output-dir preferred

A row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}. The loss is
on the assistant's tokens only; --show-mask prints them. With the recipe's `method: dpo`, a row is
{"prompt": …, "chosen": …, "rejected": …}.

The output folder contains `model/` (Hugging Face), `mlflow/` (MLflow, for a deployment without a scoring
script), `adapter/` (PEFT, if the recipe has `lora`), `metrics.json`, with --general-file `general.jsonl`
and, for the tiny model, `base/` (the model before training). All of them appear when the run is complete.
Until then an earlier result stays, and --resume continues from `checkpoints/`. Files that train.py did
not write are never replaced.

Exit codes: 0; 1 after an error (one line on standard error says what is wrong, where, and what to do);
2 for a wrong command line; 128 + the signal's number after a signal.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import devices
import distributed
import environment
import row_counts
import stopping
from console import describe_unexpected, print_line, resume_hint
from inputs import TrainError, is_local_model
from options import CommandLine, parse
from recipe_checks import DPO, TINY
from run import Run, prepare, read_inputs

if TYPE_CHECKING:
    from checkpointing import CheckpointingTrainer
    from general import GeneralAnswers
    from metrics import Metrics
    from results import Base, Fitted
    from tracking import Tracking

# -- Command line ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse(arguments, (__doc__ or "").split("\n", 1)[0])
    stopping.install_handlers()
    try:
        if options.show_mask:
            print_mask(options)
        elif options.estimate:
            print_estimate(options)
        else:
            train(options)
    except stopping.Stopped as stopped:
        has_trained = not options.show_mask and not options.estimate
        hint = f", {resume_hint(options)}" if has_trained else ""
        print_line(f"stopped by {signal.Signals(stopped.number).name}{hint}")
        return 128 + stopped.number
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        if isinstance(error, TrainError):
            print_line(str(error))
        else:
            print_line(describe_unexpected(error, options), from_every_process=True)
        return 1
    return 0


def print_mask(options: CommandLine) -> None:
    """Print the first row's tokens as the model sees them, and which of them are trained on.

    Raises:
        TrainError: an input is wrong, or the wrong tokens would be trained on.
    """
    inputs = read_inputs(options)
    environment.configure_before_imports(is_local_model(inputs.recipe.model), options.verbose)
    import models
    import templates

    environment.silence_libraries(options.verbose)
    row, model = inputs.train_chats[0], inputs.recipe.model
    tokenizer = models.load_tokenizer(inputs.recipe, inputs.train_chats, options.recipe)
    template = templates.training_template(tokenizer, model)
    print(templates.format_mask(tokenizer, row, template), flush=True)
    templates.check_mask(tokenizer, row, template, model)


def print_estimate(options: CommandLine) -> None:
    """Print the memory and the time of the training as a JSON object.

    Raises:
        TrainError: an input is wrong.
    """
    model = read_inputs(options).recipe.model
    environment.configure_before_imports(is_local_model(model), options.verbose)
    from estimate import estimate

    environment.silence_libraries(options.verbose)
    print(json.dumps(estimate(options), indent=2), flush=True)


# -- Training --------------------------------------------------------------------------------------


def train(options: CommandLine) -> None:
    """Fine-tune a model: check the inputs, load the base, fit it, and save the result.

    Raises:
        TrainError: an input is wrong. Wherever possible, this is raised before the slow imports.
    """
    # Check the inputs, which is fast -------------------------------------------------------------
    run = prepare(options)

    # Import the libraries, which takes seconds ---------------------------------------------------
    recipe = run.inputs.recipe
    is_offline = is_local_model(recipe.model) and not recipe.push_to_hub
    environment.configure_before_imports(is_offline, options.verbose)
    import hub
    import outputs
    import results
    import transformers
    from early_stopping import describe_overfitting
    from tracking import Tracking

    environment.silence_libraries(options.verbose)
    transformers.set_seed(recipe.seed)
    folder = options.output_dir / "mlruns"
    tracking = Tracking(folder, asdict(recipe), recipe.name, recipe.report_to)
    with (
        outputs.partial_folder(options.output_dir) as folder,
        tracking if run.process.is_main else contextlib.nullcontext(),
    ):
        # Load the model and its tokenizer --------------------------------------------------------
        base = load(run, folder)

        # Train -----------------------------------------------------------------------------------
        fitted = fit(run, base, tracking, folder)

        # Save ------------------------------------------------------------------------------------
        model = distributed.gather_model(fitted.trainer)
        if not run.process.is_main:
            return
        metrics = results.save(run, base, fitted, model, folder)
        # A signal in between would leave half of the new result beside half of the earlier one.
        with stopping.ignore_signals():
            outputs.publish(folder, options.output_dir)
            run.checkpoints.remove_all()
        tracking.log(asdict(metrics), metrics.steps)
        tracking.attach(options.output_dir / name for name in outputs.TRACKED_FILES)
    if overfitting := describe_overfitting(fitted.history, metrics.saved_step):
        print_line(f"{overfitting}; see {options.output_dir / outputs.CURVE}")
    print_line(
        f"done in {time.monotonic() - run.started:.0f} s, {options.output_dir}: "
        f"train loss {metrics.last_train_loss:.3f} at the end, eval loss {metrics.eval_loss:.3f}"
        + describe_rewards(metrics)
        + best_step_note(metrics)
    )
    hub.push(recipe, options.output_dir)


def describe_rewards(metrics: Metrics) -> str:
    """Return the rewards' margin and accuracy for the last line, or nothing without preferences."""
    if metrics.reward_margin is None or metrics.reward_accuracy is None:
        return ""
    return (
        f", reward margin {metrics.reward_margin:.2f}, "
        f"chosen answer preferred in {metrics.reward_accuracy:.0%}"
    )


def best_step_note(metrics: Metrics) -> str:
    """Return the saved model's step for the last line, or nothing if it is the last step."""
    if metrics.saved_step == metrics.steps:
        return ""
    return f" (saved model: step {metrics.saved_step} of {metrics.steps})"


def load(run: Run, folder: Path) -> Base:
    """Load or make the base model; a made one is saved in `folder`, since it exists nowhere else.

    Raises:
        TrainError: the model cannot be loaded, or a setting of the recipe is wrong.
    """
    import adapters
    import models
    import outputs
    import torch
    from results import Base
    from sft_config import make_config

    recipe, recipe_path = run.inputs.recipe, run.options.recipe
    device = devices.choose_device()
    distributed.check_gpus(run.process, device)
    config = make_config(recipe, device, run.checkpoints.folder, recipe_path, run.process)
    # The base's loss. After a separate trainer.evaluate(), the processes would train separately.
    config.eval_on_start = run.resume_from is None
    model, tokenizer = models.load(recipe, run.inputs.train_chats, device, run.process, recipe_path)
    models.freeze(model, recipe, recipe_path)
    if recipe.model == TINY:
        outputs.save_huggingface(model, tokenizer, folder / "base")
    parameters = model.num_parameters()
    if run.inputs.adapter:
        model = adapters.start_from(model, run.inputs.adapter, recipe)
    torch.set_num_threads(devices.choose_threads(parameters, torch.get_num_threads()))
    return Base(model, tokenizer, parameters, device, config)


def fit(run: Run, base: Base, tracking: Tracking, folder: Path) -> Fitted:
    """Train the base model on the rows, from the checkpoint to resume from if there is one.

    Raises:
        TrainError: a loss is not a number, a checkpoint cannot be written, or the chat template is
            not suitable.
        stopping.Stopped: a signal arrived.
    """
    import metrics
    import outputs
    from early_stopping import EarlyStopping
    from general import General
    from results import Fitted
    from samples import Samples

    inputs = run.inputs
    path = folder / outputs.SAMPLES
    count = inputs.recipe.samples
    samples = Samples(inputs.eval_chats, inputs.train_chats, count, base.tokenizer, path)
    stopper = EarlyStopping(**(inputs.recipe.early_stopping or {"patience": math.inf}))
    trainer = make_trainer(run, base, [tracking, samples, stopper])
    general_before = measure_general(run, base, trainer)
    with stopping.defer_first_signal():
        result = trainer.train(resume_from_checkpoint=run.resume_from and str(run.resume_from))
    saved_step = trainer.find_saved_step()
    evaluation = metrics.evaluation_at(trainer.state.log_history, saved_step)
    if evaluation is None:
        evaluation = trainer.evaluate()
    samples.drop_after(evaluation["epoch"])
    seconds = result.metrics["train_runtime"]
    general_after = measure_general(run, base, trainer)
    general = None
    if general_before and general_after:
        general = General(inputs.general_rows, general_before, general_after)
        general.write(folder / outputs.GENERAL)
    return Fitted(trainer, samples, seconds, saved_step, evaluation, stopper.has_stopped, general)


def measure_general(run: Run, base: Base, trainer: CheckpointingTrainer) -> GeneralAnswers | None:
    """Return the model's loss and answers on the general chats, if the run has some.

    Only the main process measures them; the others wait at the next step that they share.
    """
    import general
    import templates

    if not run.inputs.general_rows or not run.process.is_main:
        return None
    template = templates.training_template(base.tokenizer, run.inputs.recipe.model)
    rows = run.inputs.general_rows
    return general.measure(trainer.model, base.tokenizer, template, rows)


def make_trainer(run: Run, base: Base, callbacks: list[Any]) -> CheckpointingTrainer:
    """Make the trainer, and print what it trains."""
    import adapters
    import templates
    import transformers
    from datasets import Dataset
    from preference_trainer import PreferenceTrainer
    from progress import Progress
    from sft_config import describe_batch
    from trainer import CHECKED_ROWS, Trainer

    inputs, tokenizer = run.inputs, base.tokenizer
    settings = {
        "model": base.model,
        "processing_class": tokenizer,
        "args": base.config,
        "train_dataset": (
            inputs.stream.dataset() if inputs.stream else Dataset.from_list(inputs.train_rows)
        ),
        "eval_dataset": Dataset.from_list(inputs.eval_rows),
        "peft_config": None if inputs.adapter else adapters.make_lora(inputs.recipe),
        "callbacks": [Progress(), *callbacks],
        "checkpoints": run.checkpoints,
        "max_cut_share": inputs.recipe.max_cut_share,
    }
    trainer: CheckpointingTrainer
    if inputs.recipe.method == DPO:
        trainer = PreferenceTrainer(**settings)
    else:
        serving_template = tokenizer.chat_template
        template = templates.training_template(tokenizer, inputs.recipe.model)
        templates.check_mask(tokenizer, inputs.train_rows[0], template, inputs.recipe.model)
        tokenizer.chat_template = template
        trainer = Trainer(
            **settings,
            rows_per_sequence=inputs.recipe.rows_per_sequence,
            checked_rows=min(CHECKED_ROWS, inputs.train_row_count),
        )
        tokenizer.chat_template = serving_template
    trainer.remove_callback(transformers.PrinterCallback)
    print_line(
        f"training {base.parameters:,} parameters on {base.device}, "
        f"{inputs.train_row_count} rows, {describe_batch(base.config)}"
    )
    shortened = row_counts.describe(trainer.row_counts, base.config.max_length)
    for line in filter(None, [*inputs.notes, *shortened, trainer.few_steps]):
        print_line(line)
    return trainer


if __name__ == "__main__":
    code = main()
    distributed.end_process_group()
    sys.exit(code)
