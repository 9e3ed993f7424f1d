"""Estimate the memory and the time of a training before it runs, and what would fit instead.

The memory is counted, not modelled: the forward and the backward pass of the heaviest batch run without
memory and without computation (memory_trace.py). The optimizer's states and the libraries are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import batch_shapes
import machines
import small_data
from inputs import Recipe, TrainError
from machines import GB, Machine
from memory_trace import FakeModel, Trace
from options import CommandLine
from recipe_checks import DPO, TINY
from run import Inputs, read_inputs

# Phi3Config of the hub models in inputs.MODELS, which need not be downloaded for an estimate.
PHI3_MINI = {
    "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
SHAPES = {
    "microsoft/Phi-3-mini-4k-instruct": PHI3_MINI,
    "microsoft/Phi-3.5-mini-instruct": PHI3_MINI,
    "microsoft/Phi-4-mini-instruct": PHI3_MINI
    | {
        "vocab_size": 200064, "num_attention_heads": 24, "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
# Bytes of a card's memory that are not tensors: CUDA's context, and gaps between the tensors.
CUDA_BYTES = 800 * 10**6
# Freed memory that glibc keeps on a CPU (environment.MALLOC_OPTIONS), if the tensors have as much.
KEPT_BYTES = 512 * 2**20
USABLE_SHARE = 0.95  # of the memory
# Share of the peak in FLOP/s that a training reaches, with recomputed operations. On a CPU, the
# peak is the measured rate of a matrix product.
REACHED_SHARE = {"cpu": 0.5, "cuda": 0.4, "cuda without bf16": 0.3}
TOKENIZED_ROWS = 4000  # rows of a longer file that stand for all
LORA = {"r": 16, "alpha": 32}
TIME_NOTE = "the time is a rough value: the training may take half or twice as long"


@dataclass(frozen=True)
class Memory:
    """Bytes of a training on a card, or on a machine without one.

    Attributes:
        framework: memory of the libraries and freed memory that the process keeps, or CUDA's memory.
        weights: the model's weights, with the adapters.
        gradients: gradients of the weights that are trained.
        optimizer: states of the optimizer.
        activations: what a forward pass leaves for the backward pass, with the logits.
        peak: highest memory of the training, whose parts do not all exist at the same time.
    """

    framework: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int


@dataclass(frozen=True)
class Estimate:
    """The estimate of a training.

    Attributes:
        memory: bytes of a card or machine.
        fits: whether the machine has this memory.
        parameters: number of parameters of the base.
        trained_parameters: number of parameters that are trained.
        steps: number of optimizer steps.
        tokens: number of tokens that are computed, with the padding, in all epochs.
        flops: floating-point operations of the training and its evaluations.
        seconds: time of them, or None if the speed of the machine is not known.
    """

    memory: Memory
    fits: bool
    parameters: int
    trained_parameters: int
    steps: int
    tokens: int
    flops: int
    seconds: float | None


class Estimator:
    """Estimates changes of one recipe on its rows.

    Args:
        inputs: the checked inputs.
        options: the command line.
        framework: bytes of the libraries of a training on a CPU.

    Raises:
        TrainError: the base's configuration cannot be read.
    """

    def __init__(self, inputs: Inputs, options: CommandLine, framework: int) -> None:
        self._options, self._framework = options, framework
        self.notes: list[str] = list(inputs.notes)
        self._config, tokenizer, template = self._read_base(inputs)
        self._train = self._tokenize(inputs.train_rows, tokenizer, template)
        self._eval = self._tokenize(inputs.eval_rows, tokenizer, template)
        self._rows = len(inputs.train_rows)

    def _read_base(self, inputs: Inputs) -> tuple[Any, Any, str]:
        """Return the base's configuration, its tokenizer or None, and the template."""
        import models
        import templates
        from transformers import AutoConfig, Phi3Config

        recipe, path = inputs.recipe, self._options.recipe
        if recipe.model == TINY:
            model, tokenizer = models.make_tiny(recipe, inputs.train_chats, path)
            return model.config, tokenizer, templates.training_template(tokenizer, recipe.model)
        try:
            tokenizer = models.load_tokenizer(recipe, inputs.train_chats, path)
            template = templates.training_template(tokenizer, recipe.model)
        except TrainError:
            tokenizer, template = None, ""
            self.notes.append(
                "the tokenizer cannot be read, so the tokens are counted by the characters"
            )
        if recipe.model in SHAPES:
            return Phi3Config(**SHAPES[recipe.model], pad_token_id=0), tokenizer, template
        try:
            config = AutoConfig.from_pretrained(
                recipe.model, revision=recipe.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            fix = "give a folder, or a hub id that this machine can reach"
            raise TrainError("cannot read the model's configuration", recipe.model, fix) from error
        return config, tokenizer, template

    def _tokenize(self, rows: Any, tokenizer: Any, template: str) -> list[Any]:
        if len(rows) > TOKENIZED_ROWS:
            rows = rows[:: math.ceil(len(rows) / TOKENIZED_ROWS)]
        return batch_shapes.tokenize(rows, tokenizer, template)

    def estimate(self, recipe: Recipe, machine: Machine) -> Estimate:
        """Return the estimate of a recipe on a machine.

        Raises:
            TrainError: a setting of the recipe is wrong.
        """
        from sft_config import make_config

        path = self._options.recipe
        # bf16 and fp16 cannot be set without a GPU. They change none of the settings that are read here.
        config = make_config(recipe, "cpu", self._options.checkpoint_dir, path)
        has_flash = machine.device != "cpu" and recipe.attention in ("flash_attention_2", "auto")
        train = batch_shapes.train_batches(self._train, recipe, config, not has_flash)
        evaluation = batch_shapes.eval_batches(self._eval, recipe, config, not has_flash)
        accumulation = math.ceil(config.gradient_accumulation_steps / machine.cards)
        checkpointing = config.gradient_checkpointing
        model = FakeModel(recipe, self._config, machine.device, checkpointing, path)
        is_dpo = recipe.method == DPO
        is_computed_before = is_dpo and config.precompute_ref_log_probs
        passes = (
            2 if is_dpo and not is_computed_before else 1
        )  # of an evaluation, with the reference
        step = model.trace_training(train.heaviest, accumulation > 1, passes == 2)
        check = model.trace_evaluation(evaluation.heaviest)
        states = model.trained * optimizer_bytes(str(getattr(config.optim, "value", config.optim)))
        memory = self._memory(recipe, machine, step, check, states, accumulation > 1)
        batches = math.ceil(train.count * self._rows / len(self._train))
        steps = count_steps(config, math.ceil(batches / (accumulation * machine.cards)))
        tokens = steps * accumulation * machine.cards * train.mean_tokens
        eval_tokens = evaluation.count * evaluation.mean_tokens
        checked_tokens = passes * count_evaluations(config, steps) * eval_tokens
        if is_computed_before:
            checked_tokens += eval_tokens + batches * train.mean_tokens
        flops = tokens * step.flops / train.heaviest.tokens
        flops += checked_tokens * check.flops / evaluation.heaviest.tokens
        speed = flops_per_second(machine)
        return Estimate(
            memory=memory,
            fits=memory.peak <= USABLE_SHARE * machine.memory,
            parameters=model.parameters,
            trained_parameters=model.trained,
            steps=steps,
            tokens=round(tokens),
            flops=round(flops),
            seconds=flops / (speed * machine.cards) if speed else None,
        )

    def _memory(
        self,
        recipe: Recipe,
        machine: Machine,
        step: Trace,
        check: Trace,
        states: int,
        accumulates: bool,
    ) -> Memory:
        """Return the memory on a card, or on a machine without one.

        Args:
            recipe: recipe of the run.
            machine: machine to train on.
            step: trace of the heaviest training batch.
            check: trace of the heaviest evaluation batch.
            states: bytes of the optimizer's states.
            accumulates: whether the gradients exist during a forward pass.
        """
        share = machine.cards if recipe.fsdp is not None else 1
        # Each of several processes has the gradients twice: its own, and those that are exchanged.
        copies = step.gradients if machine.cards > share else 0
        fixed = step.weights + states + (step.gradients if accumulates else 0)
        at_once = max(step.peak + states + copies, step.weights + step.gradients + states)
        at_once = max(at_once - fixed, check.peak - step.weights) + math.ceil(fixed / share)
        framework = CUDA_BYTES
        if machine.device == "cpu":
            framework = self._framework + min(KEPT_BYTES, at_once - step.weights)
        return Memory(
            framework=framework,
            weights=step.weights // share,
            gradients=step.gradients // share,
            optimizer=states // share,
            activations=step.activations,
            peak=framework + at_once,
        )

    def alternatives(
        self, recipe: Recipe, machine: Machine
    ) -> Iterator[tuple[str, Estimate, Machine]]:
        """Yield changes that need less memory or have more of it, each with its estimate."""
        for change, candidate in smaller_recipes(recipe):
            yield change, self.estimate(candidate, machine), machine
        for larger in machines.larger_sizes(machine):
            estimate = self.estimate(recipe, larger)
            if estimate.fits:
                yield f"--machine {larger.name}", estimate, larger
                break


def estimate(options: CommandLine) -> dict[str, Any]:
    """Return the estimate of a command line's training as a JSON object; docs/training.md describes it.

    Raises:
        TrainError: an input is wrong.
    """
    machine = machines.find_machine(options.machine)
    inputs = read_inputs(options)
    recipe, note = small_data.lengthen(
        inputs.recipe, inputs.train_rows, machine.cards, options.epochs
    )
    inputs = replace(inputs, recipe=recipe, notes=[note] if note else [])
    estimator = Estimator(inputs, options, framework_bytes())
    result = estimator.estimate(recipe, machine)
    alternatives = [] if result.fits else list(estimator.alternatives(recipe, machine))
    if result.seconds is not None:
        estimator.notes.append(TIME_NOTE)
    else:
        estimator.notes.append(f"the peak of {machine.card} is not known, so the time is not")
    return {
        "model": recipe.model,
        "recipe": recipe.name,
        "machine": {
            "name": machine.name,
            "card": machine.card,
            "cards": machine.cards,
            "memory_gb": to_gb(machine.memory),
        },
        **to_json(result),
        "alternatives": [
            {"change": change, "machine": other.name, **to_json(value)}
            for change, value, other in alternatives
            if value.fits
        ],
        "notes": estimator.notes,
    }


def to_json(result: Estimate) -> dict[str, Any]:
    """Return an estimate as a JSON object, with its memory in GB (10^9 bytes)."""
    values = asdict(result)
    memory = {name: to_gb(size) for name, size in values.pop("memory").items()}
    seconds = None if result.seconds is None else round(result.seconds, 3)
    return {"memory_gb": memory, **values, "seconds": seconds}


def to_gb(size: int) -> float:
    """Return bytes as GB (10^9 bytes)."""
    return round(size / GB, 3)


def framework_bytes() -> int:
    """Return the memory of this process after the imports of a training, in bytes."""
    import mlflow  # noqa: F401
    import outputs  # noqa: F401
    import psutil
    import trainer  # noqa: F401

    return int(psutil.Process().memory_info().rss)


def optimizer_bytes(name: str) -> int:
    """Return the bytes of an optimizer's states for each trained weight, which is float32.

    Args:
        name: value of `optim` in transformers' TrainingArguments.
    """
    size = 1 if "8bit" in name else 4
    if "ademamix" in name:
        return 3 * size
    if "adam" in name:
        return 2 * size
    return size if any(part in name for part in ("lion", "rmsprop", "adagrad")) else 0


def count_steps(config: Any, per_epoch: int) -> int:
    """Return the number of optimizer steps of a training.

    Args:
        config: TRL's settings of the run.
        per_epoch: optimizer steps of an epoch.
    """
    if config.max_steps > 0:
        return int(config.max_steps)
    return math.ceil(per_epoch * config.num_train_epochs)


def count_evaluations(config: Any, steps: int) -> int:
    """Return how often the evaluation file is evaluated, with the base at the start."""
    strategy = str(getattr(config.eval_strategy, "value", config.eval_strategy))
    if strategy == "no":
        return 2
    if strategy == "epoch":
        return 1 + math.ceil(config.num_train_epochs)
    every = config.eval_steps or config.logging_steps
    every = max(1, math.ceil(every * steps) if every < 1 else round(every))
    return 1 + math.ceil(steps / every)


def flops_per_second(machine: Machine) -> float | None:
    """Return the operations per second that a training reaches on a card or CPU, or None."""
    import speed

    if machine.device == "cpu":
        # The speed of another CPU is not known; this one is better than no number.
        return REACHED_SHARE["cpu"] * speed.matrix_product_flops()
    peak = speed.peak_flops(machine.card)
    return None if peak is None else peak * REACHED_SHARE[machine.device]


def smaller_recipes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield changes of a recipe that need less memory, the mildest first, in words and as a recipe."""
    trainer = recipe.trainer
    size = trainer.get("per_device_train_batch_size", small_data.DEFAULT_BATCH)
    accumulation = trainer.get("gradient_accumulation_steps", 1)
    while size > 1:
        size, accumulation = size // 2, accumulation * 2
        batch = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "per_device_eval_batch_size": size,
        }
        words = f"per_device_train_batch_size: {size}, gradient_accumulation_steps: {accumulation}"
        yield words, replace(recipe, trainer=trainer | batch)
    smallest = trainer | {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": 1,
    }
    if not trainer.get("gradient_checkpointing", True):
        smallest = smallest | {"gradient_checkpointing": True}
        yield "the same, gradient_checkpointing: true", replace(recipe, trainer=smallest)
    if recipe.lora is None and recipe.method != DPO:
        adapters = replace(recipe, trainer=smallest, lora=LORA, trained_layers=None, fsdp=None)
        yield "the same, lora: {r: 16, alpha: 32}", adapters
