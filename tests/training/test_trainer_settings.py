"""The recipe's trainer section: every setting of SFTConfig changes something or is refused."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trainer_settings
from inputs import TrainError, read_recipe
from training_run import ROWS, TINY_RECIPE, conversation

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = {"max_steps": 4, "eval_strategy": "no", "logging_steps": 1, "save_steps": 100}
EVAL = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
EPOCHS = {"num_train_epochs": 1, "max_steps": -1}
LONG = conversation("What is the capital?", "The capital of France is Paris. " * 9)


def train(trainer):
    """Train; return the weights' sums, the steps' log entries and the names of the checkpoints."""
    trainer.train()
    weights = tuple(float(weight.double().sum()) for weight in trainer.model.parameters())
    return weights, [
        (entry["step"], tuple(sorted(entry))) for entry in trainer.state.log_history[:-1]
    ]


def weights(trainer):
    return train(trainer)[0]


def log(trainer):
    return train(trainer)[1]


def steps(trainer):
    trainer.train()
    return trainer.state.global_step


def checkpoints(trainer):
    trainer.train()
    return {path.name for path in trainer._checkpoints.folder.glob("checkpoint-*")}


def dataset(trainer):
    return trainer.train_dataset["input_ids"][:]


def batch(trainer):
    return tuple(next(iter(trainer.get_train_dataloader()))["input_ids"].shape)


def eval_batch(trainer):
    return tuple(next(iter(trainer.get_eval_dataloader()))["input_ids"].shape)


def loader(trainer):
    loader = trainer.get_train_dataloader().base_dataloader
    context = loader.multiprocessing_context
    start_method = context.get_start_method() if context else None
    return loader.num_workers, loader.prefetch_factor, loader.persistent_workers, start_method


def compiler(trainer):
    plugin = trainer.accelerator.state.dynamo_plugin
    return plugin.backend, plugin.mode


def checkpointing(trainer):
    """Return how the model's layers recompute their activations."""
    trainer.train()
    layer = trainer.model.model.layers[0]
    function = getattr(layer, "_gradient_checkpointing_func", None)
    return layer.gradient_checkpointing, str(getattr(function, "keywords", None))


def deterministic(trainer):
    import torch

    try:
        trainer.train()
        return torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def emptied_caches(trainer):
    import transformers.trainer

    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.trainer, "clear_device_cache", lambda: calls.append(1))
        trainer.train()
    return len(calls)


def map_processes(make):
    """Return the numbers of processes that tokenize the rows."""
    from datasets import Dataset

    numbers, original = set(), Dataset.map

    def record(self, *args, **kwargs):
        numbers.add(kwargs.pop("num_proc", None))
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "map", record)
        make()
    return numbers


@dataclass(frozen=True)
class Case:
    """A setting that changes something.

    Attributes:
        value: value to try.
        observe: function of the trainer that returns what changes.
        base: settings of both trainers.
        extra: settings that come with the value.
    """

    value: Any
    observe: Callable[[Any], Any] = weights
    base: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)


BEST = EVAL | {"load_best_model_at_end": True}
ACCEPTED = {
    "per_device_train_batch_size": Case(2, batch),
    "num_train_epochs": Case(2, steps, EPOCHS),
    "max_steps": Case(3, steps),
    "learning_rate": Case(1e-4),
    "lr_scheduler_type": Case("linear", weights, {"warmup_steps": 1}),
    "lr_scheduler_kwargs": Case({"num_cycles": 2.0}, weights, {"warmup_steps": 1}),
    "warmup_steps": Case(1),
    "optim": Case("sgd"),
    "weight_decay": Case(0.9),
    "adam_beta1": Case(0.5),
    "adam_beta2": Case(0.5),
    "adam_epsilon": Case(1e-3),
    "gradient_accumulation_steps": Case(2, steps, EPOCHS | {"per_device_train_batch_size": 2}),
    "max_grad_norm": Case(1e-3),
    "gradient_checkpointing": Case(True, checkpointing),
    "gradient_checkpointing_kwargs": Case(
        {"use_reentrant": True}, checkpointing, {"gradient_checkpointing": True}
    ),
    "torch_compile": Case(True, compiler),
    "torch_compile_backend": Case("eager", compiler),
    "torch_compile_mode": Case("reduce-overhead", compiler),
    "neftune_noise_alpha": Case(50.0),
    "torch_empty_cache_steps": Case(1, emptied_caches),
    "logging_steps": Case(3, log),
    "logging_first_step": Case(False, log, {"logging_steps": 3}),
    "include_num_input_tokens_seen": Case("all", log),
    "eval_strategy": Case("steps", log, {}, {"eval_steps": 1}),
    "eval_steps": Case(2, log, {"eval_strategy": "steps"}),
    "eval_delay": Case(3, log, EVAL),
    "per_device_eval_batch_size": Case(2, eval_batch),
    "save_steps": Case(3, checkpoints, {"save_steps": 2}),
    "load_best_model_at_end": Case(True, weights, EVAL, {"greater_is_better": True}),
    "metric_for_best_model": Case("entropy", weights, BEST),
    "greater_is_better": Case(True, weights, BEST),
    "full_determinism": Case(True, deterministic),
    "dataloader_num_workers": Case(1, loader),
    "dataloader_persistent_workers": Case(True, loader, {"dataloader_num_workers": 1}),
    "dataloader_prefetch_factor": Case(4, loader, {"dataloader_num_workers": 1}),
    "dataloader_multiprocessing_context": Case("spawn", loader, {"dataloader_num_workers": 1}),
    "train_sampling_strategy": Case("sequential"),
    "dataset_num_proc": Case(1, map_processes),
    "max_length": Case(24, dataset),
    "shuffle_dataset": Case(True, dataset),
    "packing": Case(True, dataset),
    "packing_strategy": Case("bfd_split", dataset, {"packing": True, "max_length": 64}),
    "pad_to_multiple_of": Case(64, batch),
    "eval_packing": Case(True, eval_batch),
}


def sft_fields():
    from trl import SFTConfig

    return {field.name for field in dataclasses.fields(SFTConfig)}


def test_every_setting_of_sft_config_is_accepted_or_refused():
    accepted, refused = set(ACCEPTED), set(trainer_settings.REFUSED)
    assert not accepted & refused
    assert accepted | refused == sft_fields()


def test_the_conditions_name_accepted_settings():
    for condition in trainer_settings.CONDITIONS:
        assert set(condition.keys) <= set(ACCEPTED)


def observe(case, folder, **settings):
    """Return what the case observes with these settings."""
    from datasets import Dataset
    from test_trainer import make_trainer

    trainer = STEPS | {"eval_strategy": "no"} | case.base | settings
    recipe_settings = {key: value for key, value in trainer.items() if value != STEPS.get(key)}
    assert trainer_settings.find_problem(recipe_settings) is None

    def make():
        return make_trainer(
            folder,
            rows=[*ROWS, LONG],
            max_cut_share=1.0,
            eval_rows=Dataset.from_list(ROWS[:4]),
            **trainer,
        )

    return case.observe(make if case.observe is map_processes else make())


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """A function that returns what a case observes without its setting, which is always the same."""
    observed = {}

    def observe_once(case):
        key = case.observe, str(case.base)
        if key not in observed:
            observed[key] = observe(case, tmp_path_factory.mktemp("base"))
        return observed[key]

    return observe_once


@pytest.mark.parametrize("case", [Case(None), Case(None, log), Case(None, checkpointing)])
def test_only_a_setting_makes_a_difference(tmp_path, baseline, case):
    assert observe(case, tmp_path) == baseline(case)


@pytest.mark.parametrize("key", ACCEPTED)
def test_an_accepted_setting_changes_something(tmp_path, baseline, key):
    case = ACCEPTED[key]
    assert observe(case, tmp_path, **{key: case.value, **case.extra}) != baseline(case)


@pytest.mark.finding(
    22,
    "a recipe has a setting that changes nothing",
    "the setting is refused with its name and the reason",
)
def test_a_setting_without_effect_is_refused_with_its_name_and_the_reason(tmp_path):
    path = tmp_path / "recipe.yaml"
    for key, reason in trainer_settings.REFUSED.items():
        path.write_text(f"model: a/b\ntrainer: {{{key}: 1}}\n", encoding="utf-8")
        with pytest.raises(TrainError) as caught:
            read_recipe(path)
        message = f"trainer.{key} cannot be in a recipe ({reason}), {path}: "
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("trainer", "problem"),
    [
        ({"eval_steps": 5}, "trainer.eval_steps needs `eval_strategy: steps`"),
        ({"eval_delay": 1, "eval_strategy": "no"}, "trainer.eval_delay needs another"),
        ({"packing_strategy": "bfd"}, "trainer.packing_strategy needs `packing: true`"),
        ({"packing_strategy": "bfd", "packing": False}, "trainer.packing_strategy needs"),
        ({"packing_strategy": "wrapped", "packing": True}, "trainer.packing_strategy needs `bfd`"),
        (
            {"gradient_checkpointing_kwargs": {"a": 1}, "gradient_checkpointing": False},
            "trainer.gradient_checkpointing_kwargs needs `gradient_checkpointing: true`",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "no"},
            "trainer.load_best_model_at_end needs another `eval_strategy`",
        ),
        ({"metric_for_best_model": "loss"}, "trainer.metric_for_best_model needs `load_best_"),
        ({"greater_is_better": True}, "trainer.greater_is_better needs `load_best_model_at_end"),
        (BEST | {"metric_for_best_model": "bleu"}, "trainer.metric_for_best_model needs one of"),
        ({"dataloader_prefetch_factor": 2}, "trainer.dataloader_prefetch_factor needs `dataloader"),
        (
            {"num_train_epochs": 3, "max_steps": 9},
            "trainer.num_train_epochs needs a recipe without",
        ),
        (
            {"warmup_steps": 5, "lr_scheduler_type": "constant"},
            "trainer.warmup_steps needs another `lr_scheduler_type`, for example constant_with",
        ),
        (
            {"lr_scheduler_kwargs": {"a": 1}, "lr_scheduler_type": "constant_with_warmup"},
            "trainer.lr_scheduler_kwargs needs another `lr_scheduler_type`",
        ),
        ({"adam_beta2": 0.9, "optim": "sgd"}, "trainer.adam_beta2 needs an AdamW or Lion `optim`"),
        ({"adam_epsilon": 1e-6, "optim": "lion_8bit"}, "trainer.adam_epsilon needs an AdamW"),
    ],
)
def test_a_setting_that_another_one_turns_off_is_refused(trainer, problem):
    assert trainer_settings.find_problem(trainer).startswith(problem)


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        BEST,
        BEST | {"save_steps": 2},
        {"load_best_model_at_end": True},
        BEST | {"metric_for_best_model": "eval_mean_token_accuracy", "greater_is_better": True},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"},
        {"optim": "paged_adamw_8bit", "adam_epsilon": 1e-6},
        {"packing_strategy": "bfd", "eval_packing": True},
        {"eval_delay": 1},
        {"num_train_epochs": 3, "max_steps": -1},
    ],
)
def test_settings_that_have_an_effect_together_are_accepted(trainer):
    assert trainer_settings.find_problem(trainer) is None


@pytest.mark.parametrize(
    ("trainer", "problem"),
    [
        ({"packing": True}, "trainer.packing cannot be in a recipe (preferences are not packed)"),
        (
            {"sync_ref_model": True},
            "trainer.sync_ref_model cannot be in a recipe (the reference is",
        ),
        ({"label_smoothing": 0.1}, "trainer.label_smoothing needs a `loss_type` that reads it: "),
        ({"loss_weights": [1.0]}, "trainer.loss_weights needs a list of several `loss_type`"),
        ({"discopop_tau": 0.1}, "trainer.discopop_tau needs `discopop` among the `loss_type`"),
        ({"f_alpha_divergence_coef": 0.1}, "trainer.f_alpha_divergence_coef needs `f_div"),
        ({"precompute_ref_batch_size": 2}, "trainer.precompute_ref_batch_size needs `precompute"),
        (
            {"load_best_model_at_end": True, "metric_for_best_model": "entropy"},
            "trainer.metric_for_best_model needs one of loss, rewards/accuracies",
        ),
    ],
)
def test_a_setting_that_has_no_effect_with_preferences_is_refused(trainer, problem):
    assert trainer_settings.find_problem(trainer, is_dpo=True).startswith(problem)


@pytest.mark.parametrize(
    "trainer",
    [
        {"beta": 0.2, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]},
        {"loss_type": "robust", "label_smoothing": 0.1},
        {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 4},
        {"load_best_model_at_end": True, "metric_for_best_model": "rewards/accuracies"},
    ],
)
def test_settings_of_preferences_are_accepted(trainer):
    assert trainer_settings.find_problem(trainer, is_dpo=True) is None


def test_every_setting_of_dpo_config_is_known():
    from trl import DPOConfig

    new = {field.name for field in dataclasses.fields(DPOConfig)} - sft_fields()
    refused = new & set(trainer_settings.REFUSED_DPO)
    assert refused == {"sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"}


def test_fsdp_recomputes_activations_without_the_settings_of_the_trainer():
    trainer = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
    assert trainer_settings.find_problem(trainer) is None
    problem = trainer_settings.find_problem(trainer, has_fsdp=True)
    assert problem == "trainer.gradient_checkpointing_kwargs has no effect with the section `fsdp`"


def test_the_shipped_recipes_have_no_setting_without_effect():
    for path in TINY_RECIPE.parent.glob("*.yaml"):
        read_recipe(path)
