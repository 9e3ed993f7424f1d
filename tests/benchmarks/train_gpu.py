"""How fast a training is: the tutorials' recipe and this package's, in turns on one NVIDIA GPU.

    python tests/benchmarks/train_gpu.py --json bench/train_gpu.json

The model has Phi-3-mini's true size and random weights, so that no network is needed; of packages it
takes torch, transformers, accelerate and peft. Without a GPU it measures nothing and says so;
train_cpu.py is the same benchmark with a small model.

The tutorials' recipe is weights and AdamW's states in bf16, eager attention, gradient checkpointing, 4
sequences a step and the loss from whole logits. Ours are recipes/full.yaml and recipes/lora.yaml as they
stand, and once without gradient checkpointing: float32 weights under bf16 autocast (frozen ones bf16),
documents that do not see each other, the fused optimizer. TRL's fused head is stood in for by
`chunked_loss`, which recomputes: TRL's is no slower. Both train rows of the same length, without padding,
and every token counts for the loss, although ours leaves out the questions and so saves part of the head.

A round runs each of them once, freshly built; the figure is the median of the rounds.

Model FLOPs utilisation (MFU) is counted without recomputation, after "PaLM: Scaling Language Modeling
with Pathways", appendix B: for each token 2 operations a weight of the matrices forward, 2 for inputs'
gradients and, where the weights are trained, 2 for theirs; attention 4 forward and 8 backward for each
layer, channel and earlier token that is seen. It is over the GPU's dense bf16 peak, 990 TFLOP/s for an
H100 or H200.

Exits 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ROOT / "scripts" / "training"
sys.path[:0] = [str(TRAINING), str(ROOT / "tests" / "support")]

import devices  # noqa: E402
import models  # noqa: E402
from inputs import Recipe, read_recipe  # noqa: E402

from bench_rows import Row, report  # noqa: E402

# Dense bf16, from NVIDIA's data sheets; operations a second.
PEAKS = {"H200": 990e12, "H100": 990e12, "A100": 312e12}
CHUNK = 2048  # tokens whose logits exist at a time
MAX_GRAD_NORM = 1.0  # transformers' default, in the tutorials' recipe and in ours
TUTORIALS = "tutorials' recipe"
TUTORIALS_FLOAT32 = "the same in float32"
GOAL_MFU = 0.45
GOAL = ("best", "MFU")
PHI3_MINI = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Size:
    """What is trained, and for how long.

    Attributes:
        shape: settings of Phi3Config.
        sequence: tokens a row.
        seconds: measured for each run, after one step to warm up.
        rounds: runs of each recipe.
        limits: what our time a token over the peer's may be at most, by the two names.
    """

    shape: dict[str, int]
    sequence: int
    seconds: float
    rounds: int
    limits: dict[tuple[str, str], float]


# The goal: three times the tutorials' tokens/s, and 45 % of the peak.
FULL_SIZE = Size(
    PHI3_MINI, 2048, seconds=8, rounds=2, limits={("best", TUTORIALS): 1 / 3, GOAL: 1.0}
)


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        rows: sequences at a time.
        accumulation: times before the optimizer's step.
        isolated: whether a row's documents see each other (False) or only themselves (True).
    """

    name: str
    rows: int
    accumulation: int
    dtype: torch.dtype
    attention: str
    checkpointing: bool
    fused_optimizer: bool
    isolated: bool
    recipe: Recipe | None = None  # None: the tutorials'

    @property
    def trains_all(self) -> bool:
        return self.recipe is None or self.recipe.lora is None


def tutorials() -> Setting:
    """fine_tune.py of "Fine-Tune and Integrate Custom Phi-3 Models with Prompt flow"."""
    return Setting(
        name=TUTORIALS,
        rows=4,
        accumulation=1,
        dtype=torch.bfloat16,
        attention="eager",
        checkpointing=True,
        fused_optimizer=False,
        isolated=False,
    )


def ours(name: str, device: str) -> Setting:
    """A recipe of this package, as train.py follows it on this device."""
    recipe = read_recipe(TRAINING / "recipes" / f"{name}.yaml")
    return Setting(
        name=name,
        rows=recipe.trainer["per_device_train_batch_size"],
        accumulation=recipe.trainer["gradient_accumulation_steps"],
        dtype=models.weights_dtype(recipe, device),
        attention=devices.choose_attention(recipe.attention, device),
        checkpointing=recipe.trainer["gradient_checkpointing"],
        fused_optimizer=recipe.trainer["optim"] == "adamw_torch_fused",
        isolated=recipe.trainer["packing_strategy"] == "bfd",
        recipe=recipe,
    )


# -- one run -----------------------------------------------------------------------------------------


def run(setting: Setting, size: Size, device: str) -> tuple[float, float]:
    """Train for some seconds.

    Returns:
        Tokens a second, and the peak of the GPU's memory in bytes (0 on the CPU).
    """
    torch.manual_seed(0)
    model = build(setting, size, device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    release(device)  # the peak is the training's, not the building's
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=setting.fused_optimizer or None)
    batches = [batch(setting, size, device, seed) for seed in range(setting.accumulation)]
    step = partial(optimizer_step, model, optimizer, trained, setting, batches)
    step()
    synchronize(device)
    # One thread's CPU time is that thread's alone, however busy the machine is.
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps, started = 0, clock()
    while (elapsed := clock() - started) < size.seconds:
        step()
        synchronize(device)
        steps += 1
    tokens = steps * setting.accumulation * setting.rows * size.sequence
    return tokens / elapsed, torch.cuda.max_memory_allocated() if device != "cpu" else 0.0


def build(setting: Setting, size: Size, device: str) -> Any:
    config = transformers.Phi3Config(
        **size.shape, pad_token_id=0, bos_token_id=1, eos_token_id=2, use_cache=False
    )
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=setting.dtype, attn_implementation=setting.attention
        )
    if not setting.trains_all:
        from peft import get_peft_model

        model = get_peft_model(model, models.make_lora(setting.recipe))
    if setting.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": setting.recipe is None})
        if not setting.trains_all:
            model.enable_input_require_grads()
    return model.train()


def batch(setting: Setting, size: Size, device: str, seed: int) -> dict[str, torch.Tensor]:
    """Random rows. Isolated documents lie in one long row, their positions starting anew (TRL's
    padding-free packing)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (setting.rows, size.sequence)
    tokens = torch.randint(3, size.shape["vocab_size"], shape, generator=generator).to(device)
    if not setting.isolated:
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    places = [torch.arange(n) for _ in range(setting.rows) for n in documents(size.sequence)]
    return {"input_ids": tokens.view(1, -1), "position_ids": torch.cat(places)[None].to(device)}


def documents(sequence: int) -> list[int]:
    """The lengths of a row's documents: half of it, a quarter, an eighth, and an eighth."""
    return [sequence // 2, sequence // 4, sequence // 8, sequence // 8]


def optimizer_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    trained: list[torch.Tensor],
    setting: Setting,
    batches: Sequence[dict[str, torch.Tensor]],
) -> None:
    for inputs in batches:
        with autocast(setting, inputs["input_ids"].device.type):
            loss = (
                whole_loss(model, inputs) if setting.recipe is None else chunked_loss(model, inputs)
            )
        (loss / len(batches)).backward()
    torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad()


def autocast(setting: Setting, device: str) -> Any:
    """bf16 where the weights are, and in ours on a GPU."""
    if setting.dtype == torch.bfloat16 or device == "cuda":
        return torch.autocast(device, torch.bfloat16)
    return nullcontext()


def whole_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, labels=inputs["input_ids"]).loss


def chunked_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same loss, without the logits of all tokens at once: those of 8,192 tokens take gigabytes."""
    causal = getattr(model, "get_base_model", lambda: model)()
    hidden = causal.model(**inputs, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    labels = inputs["input_ids"][:, 1:].flatten()
    if "position_ids" in inputs:  # a document's first token follows from nothing
        labels = labels.masked_fill(inputs["position_ids"][:, 1:].flatten() == 0, -100)
    parts = [
        torch.utils.checkpoint.checkpoint(summed_loss, causal.lm_head, *part, use_reentrant=False)
        for part in zip(hidden.split(CHUNK), labels.split(CHUNK))
    ]
    return torch.stack(parts).sum() / (labels != -100).sum()


def summed_loss(head: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


# -- what the figures mean ---------------------------------------------------------------------------


def flops_per_token(setting: Setting, size: Size) -> float:
    """Operations that training on a token needs, recomputation not counted (see above)."""
    hidden, layers = size.shape["hidden_size"], size.shape["num_hidden_layers"]
    inner, vocabulary = size.shape["intermediate_size"], size.shape["vocab_size"]
    # qkv and o take 4 hidden² where keys and values have as many heads as queries, as in Phi-3-mini.
    weights = layers * (4 * hidden**2 + 3 * hidden * inner) + vocabulary * hidden
    lengths = documents(size.sequence) if setting.isolated else [size.sequence]
    seen = sum(length**2 / 2 for length in lengths) / sum(lengths)
    return (6 if setting.trains_all else 4) * weights + 12 * layers * hidden * seen


def peak_flops(device: str) -> tuple[float, str]:
    """The most that this device can do, in operations a second, and where that is from.

    A device that is not listed is measured: the largest rate of a square matrix product, of float32 on
    a CPU, which is what ours computes in there.
    """
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    for known, peak in PEAKS.items():
        if known in name:
            return peak, f"{known}'s {peak / 1e12:.0f} TFLOP/s"
    side = 1024 if device == "cpu" else 8192
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    square = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(8):
        synchronize(device)
        clock = time.process_time if device == "cpu" else time.perf_counter
        started = clock()
        square @ square
        synchronize(device)
        best = max(best, 2 * side**3 / (clock() - started))
    return best, f"{best / 1e9:,.0f} GFLOP/s of a matrix product"


@dataclass(frozen=True)
class Figures:
    """A setting's medians, or nothing where the memory did not do."""

    setting: Setting
    tokens: float  # a second
    mfu: float
    memory: float  # bytes


def measure(settings: Sequence[Setting], size: Size, device: str, peak: float) -> list[Figures]:
    """The settings in turns, so that what else the machine does meets all of them."""
    runs: dict[str, list[tuple[float, float]]] = {setting.name: [] for setting in settings}
    lost: set[str] = set()
    for turn in range(size.rounds):
        for setting in settings:
            if setting.name in lost:
                continue
            try:
                runs[setting.name].append(run(setting, size, device))
                rate = f"{runs[setting.name][-1][0]:,.0f} tokens/s"
            except torch.OutOfMemoryError:
                lost.add(setting.name)
                rate = "out of memory"
            print(f"round {turn + 1}, {setting.name}: {rate}", file=sys.stderr, flush=True)
            release(device)
    found = []
    for setting in settings:
        if setting.name not in lost:
            tokens, memory = (statistics.median(values) for values in zip(*runs[setting.name]))
            mfu = tokens * flops_per_token(setting, size) / peak
            found.append(Figures(setting, tokens, mfu, memory))
    return found


def named(figures: Figures, name: str) -> Figures:
    return replace(figures, setting=replace(figures.setting, name=name))


def release(device: str) -> None:
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def rows_of(found: Sequence[Figures], size: Size) -> Iterator[Row]:
    """Ours against the tutorials', and the best of ours against the goal, where there is one."""
    peers = [each for each in found if each.setting.recipe is None]
    mine = [each for each in found if each.setting.recipe is not None]
    fastest = named(max(mine, key=lambda each: each.tokens), "best")
    for each in [*mine, fastest]:
        name = each.setting.name
        for peer in peers:
            theirs = peer.setting.name
            times = (1e6 / each.tokens, 1e6 / peer.tokens)
            yield Row(f"{name}, time", "µs/token", *times, theirs, size.limits.get((name, theirs)))
            if each.memory and each is not fastest:
                memory = (each.memory / 1e9, peer.memory / 1e9)
                yield Row(f"{name}, memory", "GB", *memory, theirs)
    if GOAL in size.limits:
        best = max(mine, key=lambda each: each.mfu)
        now = 1e6 / best.tokens
        times = (now, now * best.mfu / GOAL_MFU)
        yield Row("best, MFU", "µs/token", *times, f"MFU of {GOAL_MFU:.0%}", size.limits[GOAL])


def print_settings(found: Sequence[Figures], device: str) -> None:
    name = torch.cuda.get_device_name() if device != "cpu" else "one CPU thread, in its own time"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {name}, Python {platform.python_version()}, {versions}\n")
    print(
        "| recipe | attention | rows x accumulation | checkpointing | tokens/s | MFU | peak memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for each in found:
        how = each.setting
        memory = f"{each.memory / 1e9:.0f} GB" if each.memory else "–"
        print(
            f"| {how.name} | {how.attention} | {how.rows} x {how.accumulation} "
            f"| {'yes' if how.checkpointing else 'no'} | {each.tokens:,.0f} | {each.mfu:.0%} | {memory} |"
        )
    print()
    print()


def settings_of(device: str, attention: str | None = None) -> list[Setting]:
    """The tutorials', and each of our recipes as it is and without gradient checkpointing.

    On a CPU ours compute in float32, whether it has instructions for bf16 or not: so the tutorials'
    recipe is measured in float32 as well.
    """
    recipes = [ours(name, device) for name in ("full", "lora")]
    if attention is not None:
        recipes = [replace(each, attention=attention) for each in recipes]
    more = [
        replace(each, name=f"{each.name}, no checkpointing", checkpointing=False)
        for each in recipes
        if each.checkpointing
    ]
    peers = [tutorials()]
    if device == "cpu":
        peers.append(replace(peers[0], name=TUTORIALS_FLOAT32, dtype=torch.float32))
    return [*peers, *recipes, *more]


def main(arguments: list[str] | None = None, size: Size = FULL_SIZE, device: str = "cuda") -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--attention", help="ours', such as flex_attention")
    parser.add_argument("--rounds", type=int, default=size.rounds)
    parser.add_argument("--seconds", type=float, default=size.seconds, help="of each run")
    args = parser.parse_args(arguments)
    size = replace(size, rounds=args.rounds, seconds=args.seconds)
    rows: list[Row] = []
    if device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU: nothing measured; train_cpu.py measures a small model on the CPU")
    else:
        if device == "cpu":
            torch.set_num_threads(1)
        peak, source = peak_flops(device)
        found = measure(settings_of(device, args.attention), size, device, peak)
        rows += rows_of(found, size)
        print(f"MFU is over {source}; rows of {size.sequence} tokens")
        print_settings(found, device)
    return report(rows, args.json)


if __name__ == "__main__":
    sys.exit(main())
