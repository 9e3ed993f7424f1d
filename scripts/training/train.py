"""Fine-tune a Phi-3 on conversations: the same file and recipes on this machine and in an Azure ML job.

    python train.py --recipe recipes/tiny-cpu.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out
    python train.py --recipe recipes/lora.yaml --train-file train.jsonl --eval-file test.jsonl \
        --output-dir out --model phi-4-mini --epochs 1 --resume
    torchrun --nproc-per-node 8 train.py --recipe recipes/full.yaml --train-file train.jsonl \
        --eval-file test.jsonl --output-dir out

A row is {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}. The loss is
on the assistant's tokens only; --show-mask prints them.

The output folder contains `model/` (Hugging Face), `mlflow/` (MLflow, for a deployment without a scoring
script), `metrics.json`, with --general-file `general.jsonl` and, for the tiny model, `base/` (the model
before training). All of them appear when the run is complete. Until then an earlier result stays, and
--resume continues from `checkpoints/`. Files that train.py did not write are never replaced.

Exit codes: 0; 1 after an error (one line on standard error says what is wrong, where, and what to do);
2 for a wrong command line; 128 + the signal's number after a signal.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import devices
import distributed
import environment
import row_counts
import stopping
from checkpoints import step_of
from console import describe_unexpected, print_line, resume_hint
from inputs import TINY, TrainError, is_local_model
from options import CommandLine, parse
from run import Run, prepare, read_inputs

if TYPE_CHECKING:
    from general import General, GeneralAnswers
    from metrics import Metrics
    from samples import Samples
    from tracking import Tracking
    from trainer import Trainer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

# -- Command line ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse(arguments, (__doc__ or "").split("\n", 1)[0])
    stopping.install_handlers()
    try:
        if options.show_mask:
            print_mask(options)
        else:
            train(options)
    except stopping.Stopped as stopped:
        print_line(f"stopped by {signal.Signals(stopped.number).name}, {resume_hint(options)}")
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
    row, model = inputs.train_rows[0], inputs.recipe.model
    tokenizer = models.load_tokenizer(inputs.recipe, inputs.train_rows, options.recipe)
    template = templates.training_template(tokenizer, model)
    print(templates.format_mask(tokenizer, row, template), flush=True)
    templates.check_mask(tokenizer, row, template, model)


# -- Training --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """The loaded base model, and how to train it.

    Attributes:
        model: base model.
        tokenizer: its tokenizer, with the chat template that serving uses.
        parameters: number of the model's parameters.
        device: key of devices.PRECISIONS.
        config: TRL's settings.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: int
    device: str
    config: SFTConfig


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
        trainer: trainer with the trained model and its log.
        samples: sample answers of all epochs, up to that of the saved model.
        seconds: duration of the training.
        saved_step: step whose weights the model has: the last one or the best one.
        eval_loss: evaluation loss of the model at that step, in nats per token.
        general: what the base and the trained model can on the general chats, or None without any.
    """

    trainer: Trainer
    samples: Samples
    seconds: float
    saved_step: int
    eval_loss: float
    general: General | None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The trainer's log."""
        return self.trainer.state.log_history


def train(options: CommandLine) -> None:
    """Fine-tune a model: check the inputs, load the base, fit it, and save the result.

    Raises:
        TrainError: an input is wrong. Wherever possible, this is raised before the slow imports.
    """
    # Check the inputs, which is fast -------------------------------------------------------------
    run = prepare(options)

    # Import the libraries, which takes seconds ---------------------------------------------------
    environment.configure_before_imports(is_local_model(run.inputs.recipe.model), options.verbose)
    import outputs
    import transformers
    from tracking import Tracking

    environment.silence_libraries(options.verbose)
    transformers.set_seed(run.inputs.recipe.seed)

    recipe = run.inputs.recipe
    tracking = Tracking(options.output_dir / "mlruns", asdict(recipe), recipe.name)
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
        metrics = save(run, base, fitted, model, folder)
        # A signal in between would leave half of the new result beside half of the earlier one.
        with stopping.ignore_signals():
            outputs.publish(folder, options.output_dir)
            run.checkpoints.remove_all()
        tracking.log(asdict(metrics), metrics.steps)
        tracking.attach(options.output_dir / name for name in outputs.TRACKED_FILES)
    print_line(
        f"done in {time.monotonic() - run.started:.0f} s, {options.output_dir}: "
        f"train loss {metrics.last_train_loss:.3f} at the end, eval loss {metrics.eval_loss:.3f}"
        + best_step_note(metrics)
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
    import models
    import outputs
    import torch
    from sft_config import make_config

    recipe, recipe_path = run.inputs.recipe, run.options.recipe
    device = devices.choose_device()
    distributed.check_gpus(run.process, device)
    config = make_config(recipe, device, run.checkpoints.folder, recipe_path, run.process)
    # The base's loss. After a separate trainer.evaluate(), the processes would train separately.
    config.eval_on_start = run.resume_from is None
    model, tokenizer = models.load(recipe, run.inputs.train_rows, device, run.process, recipe_path)
    models.freeze(model, recipe, recipe_path)
    if recipe.model == TINY:
        outputs.save_huggingface(model, tokenizer, folder / "base")
    parameters = model.num_parameters()
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
    from general import General
    from samples import Samples

    inputs = run.inputs
    path = folder / outputs.SAMPLES
    count = inputs.recipe.samples
    samples = Samples(inputs.eval_rows, inputs.train_rows, count, base.tokenizer, path)
    trainer = make_trainer(run, base, [tracking, samples])
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
    return Fitted(trainer, samples, seconds, saved_step, evaluation["eval_loss"], general)


def measure_general(run: Run, base: Base, trainer: Trainer) -> GeneralAnswers | None:
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


def make_trainer(run: Run, base: Base, callbacks: list[Any]) -> Trainer:
    """Make the trainer, and print what it trains."""
    import models
    import templates
    import transformers
    from datasets import Dataset
    from progress import Progress
    from sft_config import describe_batch
    from trainer import Trainer

    inputs, tokenizer = run.inputs, base.tokenizer
    serving_template = tokenizer.chat_template
    template = templates.training_template(tokenizer, inputs.recipe.model)
    templates.check_mask(tokenizer, inputs.train_rows[0], template, inputs.recipe.model)
    tokenizer.chat_template = template
    trainer = Trainer(
        model=base.model,
        processing_class=tokenizer,
        args=base.config,
        train_dataset=Dataset.from_list(inputs.train_rows),
        eval_dataset=Dataset.from_list(inputs.eval_rows),
        peft_config=models.make_lora(inputs.recipe),
        callbacks=[Progress(), *callbacks],
        checkpoints=run.checkpoints,
        max_cut_share=inputs.recipe.max_cut_share,
        rows_per_sequence=inputs.recipe.rows_per_sequence,
    )
    tokenizer.chat_template = serving_template
    trainer.remove_callback(transformers.PrinterCallback)
    print_line(
        f"training {base.parameters:,} parameters on {base.device}, "
        f"{len(inputs.train_rows)} rows, {describe_batch(base.config)}"
    )
    shortened = row_counts.describe(trainer.row_counts, base.config.max_length)
    for line in filter(None, [*inputs.notes, *shortened, trainer.few_steps]):
        print_line(line)
    return trainer


def save(run: Run, base: Base, fitted: Fitted, model: Any, folder: Path) -> Metrics:
    """Save the trained model, the metrics, the loss curve and the model card in `folder`.

    Args:
        run: the run.
        base: base model before training.
        fitted: finished training.
        model: trained model, unsharded.
        folder: partial folder of the result.
    """
    import models
    import outputs
    import torch
    from metrics import write_metrics

    recipe = run.inputs.recipe
    model = models.merge_adapters(model, recipe, folder / "adapters")
    model = model.to(device="cpu", dtype=getattr(torch, recipe.save_dtype or "float32"))
    model.config.use_cache = True
    outputs.save_huggingface(model, base.tokenizer, folder / "model")
    outputs.save_mlflow(model, base.tokenizer, folder / "mlflow")
    metrics = collect_metrics(run, base, fitted)
    write_metrics(metrics, folder / outputs.METRICS)
    outputs.write_curve_and_card(
        folder,
        recipe=recipe,
        metrics=metrics,
        train_file=run.options.train_file,
        history=fitted.history,
        samples=fitted.samples.answers,
        general=fitted.general.comparisons() if fitted.general else (),
    )
    return metrics


def collect_metrics(run: Run, base: Base, fitted: Fitted) -> Metrics:
    """Return the metrics of a finished training."""
    import metrics
    import torch

    recipe, resume_from = run.inputs.recipe, run.resume_from
    base_eval_loss = metrics.base_eval_loss(fitted.history)
    train_rows, eval_rows = (fitted.trainer.row_counts[name] for name in ("train", "eval"))
    return metrics.Metrics(
        seconds=round(time.monotonic() - run.started, 2),
        train_seconds=round(fitted.seconds, 2),
        steps=fitted.trainer.state.global_step,
        saved_step=fitted.saved_step,
        resumed_from=step_of(resume_from) if resume_from else None,
        epochs=round(fitted.trainer.state.epoch, 2),
        tokens=metrics.total_tokens(fitted.history),
        train_loss=metrics.mean_loss(fitted.history),
        last_train_loss=metrics.last_loss(fitted.history),
        eval_loss=fitted.eval_loss,
        perplexity=math.exp(fitted.eval_loss),
        base_eval_loss=base_eval_loss,
        base_perplexity=math.exp(base_eval_loss),
        general_rows=len(fitted.general.rows) if fitted.general else 0,
        general_loss=fitted.general.tuned.loss if fitted.general else None,
        base_general_loss=fitted.general.base.loss if fitted.general else None,
        train_rows=train_rows.total,
        cut_train_rows=train_rows.cut,
        dropped_train_rows=train_rows.dropped,
        eval_rows=eval_rows.total,
        cut_eval_rows=eval_rows.cut,
        dropped_eval_rows=eval_rows.dropped,
        model=Path(recipe.model).name if Path(recipe.model).is_dir() else recipe.model,
        parameters=base.parameters,
        device=base.device,
        attention=base.model.config._attn_implementation,
        processes=run.process.count,
        threads=torch.get_num_threads(),
        seed=recipe.seed,
        recipe=recipe.name,
        versions=metrics.package_versions(),
    )


if __name__ == "__main__":
    code = main()
    distributed.end_process_group()
    sys.exit(code)
