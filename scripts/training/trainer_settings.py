"""The recipe's `trainer` section: which settings of TRL's SFTConfig or DPOConfig it may contain.

A setting that train.py overrides, or that has no effect here, is refused with its name: the libraries
accept it, and at most print a warning that is muted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]

_KEYS_BY_REASON = {
    "train.py takes it from the command line": (
        "output_dir", "resume_from_checkpoint",
    ),
    "use the recipe's `seed`": ("seed", "data_seed"),
    "train.py always trains and evaluates": ("do_train", "do_eval", "do_predict"),
    "train.py always evaluates the base first": ("eval_on_start",),
    "train.py chooses the device and its precision": (
        "use_cpu", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "dataloader_pin_memory",
    ),
    "train.py sets up the processes": (
        "local_rank", "ddp_backend", "ddp_find_unused_parameters", "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers", "ddp_static_graph", "ddp_timeout", "accelerator_config",
        "parallelism_config", "average_tokens_across_devices",
    ),
    "use the recipe's section `fsdp`": ("fsdp", "fsdp_config", "deepspeed"),
    "use gradient_checkpointing, which is also passed to FSDP": (
        "activation_checkpointing", "activation_checkpointing_kwargs",
    ),
    "--resume needs complete checkpoints after save_steps steps": (
        "save_strategy", "save_total_limit", "save_only_model", "save_on_each_node",
        "enable_jit_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint",
    ),
    "use the recipe's `report_to`": ("report_to",),
    "train.py has its own progress, log and MLflow run": (
        "run_name", "project", "trackio_space_id", "trackio_bucket_id",
        "trackio_static_space_id", "disable_tqdm", "log_level", "log_level_replica",
        "log_on_each_node", "skip_memory_metrics", "debug",
    ),
    "the loss curve and the mean loss need a log of the steps; use logging_steps": (
        "logging_strategy", "logging_nan_inf_filter",
    ),
    "use the recipe's `push_to_hub`, `hub_model_id` and `hub_private`, and HF_TOKEN": (
        "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id",
    ),
    "only the complete result is pushed, once": (
        "hub_strategy", "hub_always_push", "hub_revision",
    ),
    "use the recipe's `model`, `revision`, `attention`, `use_kernels` and `quantization`": (
        "model_init_kwargs", "trust_remote_code", "use_cache",
    ),
    "the base's own template and tokens are used": ("chat_template_path", "eos_token", "pad_token"),
    "the rows are always conversations": (
        "dataset_text_field", "dataset_kwargs", "completion_only_loss", "remove_unused_columns",
        "label_names", "length_column_name",
    ),
    "the loss is always that of the answers' tokens, in nats per token": (
        "assistant_only_loss", "loss_type", "label_smoothing_factor",
    ),
    "Phi-3 is not a mixture of experts": ("router_aux_loss_coef",),
    "it would leave out rows without counting them": ("dataloader_drop_last",),
    "it would change the order of the rows after --resume": ("dataloader_in_order",),
    "it would stop the run's batch from being that of the recipe": ("auto_find_batch_size",),
    "it would cut the questions instead of the answers' ends": ("truncation_mode",),
    "packing with the strategy bfd includes it": ("padding_free",),
    "only the evaluation's loss is computed": (
        "prediction_loss_only", "include_for_metrics", "batch_eval_metrics",
        "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps",
    ),
    "the optimizers that read it are not supported": ("optim_args", "optim_target_modules"),
    "TRL replaces it with the hub's kernels; use the recipe's `use_kernels`": (
        "use_liger_kernel", "liger_kernel_config",
    ),
    "it was never tried; use gradient_checkpointing": ("activation_offloading",),
}  # fmt: skip
REFUSED = {key: reason for reason, keys in _KEYS_BY_REASON.items() for key in keys}
# With `method: dpo`: settings of SFTConfig that DPOConfig lacks, or that have no effect there.
_DPO_KEYS_BY_REASON = {
    "preferences are not packed": ("packing", "packing_strategy", "eval_packing"),
    "the order of the rows is that of the seed": ("shuffle_dataset",),
    "the reference is the model without its adapters": (
        "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps",
    ),
}  # fmt: skip
_DPO_ACCEPTED = ("loss_type", "label_smoothing")
REFUSED_DPO = {key: reason for key, reason in REFUSED.items() if key not in _DPO_ACCEPTED} | {
    key: reason for reason, keys in _DPO_KEYS_BY_REASON.items() for key in keys
}

# Schedulers without a warm-up and without settings.
_NO_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
_NO_SCHEDULER_SETTINGS = ("constant", "constant_with_warmup")
_READ_METRIC = ("reduce_lr_on_plateau", "greedy")
# The metrics that TRL computes at an evaluation.
_METRICS = ("loss", "entropy", "mean_token_accuracy")
_DPO_METRICS = ("loss", "rewards/accuracies", "rewards/margins")
# Losses of DPOConfig that read `label_smoothing`.
_SMOOTHED_LOSSES = {"robust", "exo_pair", "aot", "aot_unpaired"}


@dataclass(frozen=True)
class Condition:
    """What settings need in order to have an effect.

    Attributes:
        keys: settings with the condition.
        is_met: whether a `trainer` section meets the condition.
        need: what the settings need, for the error.
    """

    keys: tuple[str, ...]
    is_met: Callable[[Settings], bool]
    need: str


def _scheduler(trainer: Settings) -> str:
    return str(trainer.get("lr_scheduler_type", "linear"))


def _optimizer(trainer: Settings) -> str:
    return str(trainer.get("optim", "adamw_torch_fused"))


def _evaluates_by_steps(trainer: Settings) -> bool:
    return trainer.get("eval_strategy") == "steps"


def _losses(trainer: Settings) -> set[str]:
    losses = trainer.get("loss_type") or ["sigmoid"]
    return {losses} if isinstance(losses, str) else set(losses)


def _uses_metric(trainer: Settings) -> bool:
    return bool(trainer.get("load_best_model_at_end")) or _scheduler(trainer) in _READ_METRIC


CONDITIONS = (
    Condition(("eval_steps",), _evaluates_by_steps, "`eval_strategy: steps`"),
    Condition(("eval_delay",), lambda t: t.get("eval_strategy") != "no", "another `eval_strategy`"),
    Condition(
        ("packing_strategy",),
        lambda t: bool(t.get("packing") or t.get("eval_packing")),
        "`packing: true`",
    ),
    Condition(
        ("gradient_checkpointing_kwargs",),
        lambda t: bool(t.get("gradient_checkpointing", True)),
        "`gradient_checkpointing: true`",
    ),
    Condition(
        ("load_best_model_at_end",),
        lambda t: t.get("eval_strategy") != "no",
        "another `eval_strategy`",
    ),
    Condition(
        ("metric_for_best_model", "greater_is_better"),
        _uses_metric,
        "`load_best_model_at_end: true`",
    ),
    Condition(
        (
            "dataloader_prefetch_factor",
            "dataloader_persistent_workers",
            "dataloader_multiprocessing_context",
        ),
        lambda t: bool(t.get("dataloader_num_workers")),
        "`dataloader_num_workers` above 0",
    ),
    Condition(
        ("num_train_epochs",), lambda t: t.get("max_steps", -1) <= 0, "a recipe without `max_steps`"
    ),
    Condition(
        ("warmup_steps",),
        lambda t: _scheduler(t) not in _NO_WARMUP,
        "another `lr_scheduler_type`, for example constant_with_warmup",
    ),
    Condition(
        ("lr_scheduler_kwargs",),
        lambda t: _scheduler(t) not in _NO_SCHEDULER_SETTINGS,
        "another `lr_scheduler_type`",
    ),
    Condition(
        ("adam_beta1", "adam_beta2"),
        lambda t: any(name in _optimizer(t) for name in ("adam", "ademamix", "lion")),
        "an AdamW or Lion `optim`",
    ),
    Condition(
        ("adam_epsilon",),
        lambda t: any(name in _optimizer(t) for name in ("adam", "ademamix")),
        "an AdamW `optim`",
    ),
    Condition(
        ("packing_strategy",),
        lambda t: t["packing_strategy"] != "wrapped",
        "`bfd` or `bfd_split`: with `wrapped`, the conversations would see each other",
    ),
)
SFT_CONDITIONS = (
    Condition(
        ("metric_for_best_model",),
        lambda t: str(t["metric_for_best_model"]).removeprefix("eval_") in _METRICS,
        f"one of {', '.join(_METRICS)}",
    ),
)
DPO_CONDITIONS = (
    Condition(
        ("metric_for_best_model",),
        lambda t: str(t["metric_for_best_model"]).removeprefix("eval_") in _DPO_METRICS,
        f"one of {', '.join(_DPO_METRICS)}",
    ),
    Condition(
        ("label_smoothing",),
        lambda t: bool(_losses(t) & _SMOOTHED_LOSSES),
        f"a `loss_type` that reads it: {', '.join(sorted(_SMOOTHED_LOSSES))}",
    ),
    Condition(
        ("discopop_tau",), lambda t: "discopop" in _losses(t), "`discopop` among the `loss_type`"
    ),
    Condition(("loss_weights",), lambda t: len(_losses(t)) > 1, "a list of several `loss_type`"),
    Condition(
        ("f_alpha_divergence_coef",),
        lambda t: t.get("f_divergence_type") == "alpha_divergence",
        "`f_divergence_type: alpha_divergence`",
    ),
    Condition(
        ("precompute_ref_batch_size",),
        lambda t: bool(t.get("precompute_ref_log_probs")),
        "`precompute_ref_log_probs: true`",
    ),
)


def find_problem(trainer: Settings, has_fsdp: bool = False, *, is_dpo: bool = False) -> str | None:
    """Return the first setting that would have no effect or cannot be changed, or None.

    Args:
        trainer: the recipe's `trainer` section.
        has_fsdp: whether the recipe has the section `fsdp`.
        is_dpo: whether the recipe has `method: dpo`.
    """
    refused = REFUSED_DPO if is_dpo else REFUSED
    for key in sorted(trainer):
        if key in refused:
            return f"trainer.{key} cannot be in a recipe ({refused[key]})"
    for condition in (*CONDITIONS, *(DPO_CONDITIONS if is_dpo else SFT_CONDITIONS)):
        for key in condition.keys:
            # A setting that is off or empty has its default.
            if trainer.get(key) and not condition.is_met(trainer):
                return f"trainer.{key} needs {condition.need}"
    if has_fsdp and trainer.get("gradient_checkpointing_kwargs"):
        return "trainer.gradient_checkpointing_kwargs has no effect with the section `fsdp`"
    return None
