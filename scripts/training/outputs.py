"""What train.py leaves behind: a whole result under its final names, or nothing."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inputs import Recipe
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CURVE, SAMPLES, METRICS = "loss.png", "samples.jsonl", "metrics.json"
SHOWN = (METRICS, CURVE, "model/README.md")  # what an MLflow run shows of the result
PARTS = ("base", "model", "mlflow", METRICS, CURVE, SAMPLES)
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "mlflow-skinny")
# Phi-3 ends a turn with <|end|>; a model's generation config may name only the end of the text.
END_MARKS = ("<|end|>", "<|endoftext|>")

# MLflow's flavour applies no chat template: without this one a question is just text to go on from.
PROMPT_TEMPLATE = "<|user|>\n{prompt}<|end|>\n<|assistant|>\n"
# A parameter that the signature does not name is dropped without a word.
PARAMS = [
    ("max_new_tokens", "long", 128),
    ("temperature", "double", 0.7),
    ("top_p", "double", 1.0),
    ("do_sample", "boolean", False),
    ("return_full_text", "boolean", False),
]


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """A folder inside `out` to build in. Gone afterwards, however the block ends."""
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(partial: Path, out: Path) -> None:
    """Put a finished result in the place of the earlier one, by renaming."""
    earlier = partial / "earlier"
    earlier.mkdir()
    for name in PARTS:
        if (out / name).exists():
            (out / name).rename(earlier / name)
        if (partial / name).exists():
            (partial / name).rename(out / name)


def save_huggingface(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Save model, tokenizer, chat template and generation config as one Hugging Face folder."""
    config = model.generation_config
    config.eos_token_id = find_end_tokens(tokenizer, config.eos_token_id)
    config.pad_token_id = tokenizer.pad_token_id
    # As it stands in the file; transformers would derive one without <|end|> from the model's config.
    config._from_model_config = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def find_end_tokens(
    tokenizer: PreTrainedTokenizerBase, configured: int | list[int] | None
) -> list[int]:
    """Return the ids of the tokens that end an answer, each of them once.

    scripts/serving/engine_transformers.py has the same function, because each of the two folders is
    uploaded alone; a test compares them.

    Args:
        tokenizer: the model's tokenizer.
        configured: `eos_token_id` of the model's generation config.
    """
    vocabulary = tokenizer.get_vocab()
    marks = [vocabulary.get(mark) for mark in (tokenizer.eos_token, *END_MARKS)]
    ids = [*(configured if isinstance(configured, list) else [configured]), *marks]
    return list(dict.fromkeys(token for token in ids if token is not None))


def save_mlflow(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save an MLflow model that Azure ML deploys without a scoring script.

    Source of the requirements: Azure/azureml-examples pull requests 3904 and 3917 (the scoring
    script that Azure ML generates imports azureml.ai.monitoring).
    """
    import huggingface_hub.constants
    import mlflow.transformers
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    # MLflow asks the hub for a model card; for a folder's name there is none, and offline it waits.
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    # MLflow writes this down as the model's source; a path means nothing anywhere else.
    model.name_or_path = Path(model.name_or_path).name
    # Written out: inferring it needs scipy, and without that gives "anything" as the schema.
    text = Schema([ColSpec(DataType.string)])
    params = ParamSchema([ParamSpec(name, DataType[kind], value) for name, kind, value in PARAMS])
    signature = ModelSignature(inputs=text, outputs=text, params=params)
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        path=str(folder),
        task="text-generation",
        signature=signature,
        prompt_template=PROMPT_TEMPLATE,
        pip_requirements=_requirements(),
    )


def _requirements() -> list[str]:
    # mlflow as it saved this model: an older one does not know this version of transformers.
    pinned = {"mlflow": "mlflow-skinny", "torch": "torch", "transformers": "transformers"}
    pinned["accelerate"] = "accelerate"
    found = versions()
    own = [f"{name}=={found[package].partition('+')[0]}" for name, package in pinned.items()]
    return [*own, "azureml-ai-monitoring", "azureml-inference-server-http>=1.5.1"]


def versions() -> dict[str, str]:
    """The installed versions of what takes part in a training."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(
    folder: Path,
    *,
    recipe: Recipe,
    metrics: dict[str, Any],
    train_file: Path,
    history: Sequence[dict[str, Any]],
    samples: Sequence[dict[str, Any]],
) -> None:
    """Draw the loss curve beside the model and write the model's card, which shows it too.

    Neither is worth the model: where one of them fails, that is said and the rest goes on.
    """
    model = folder / "model"
    picture: str | None = None
    try:
        import curve

        title = f"{metrics['model']}, recipe {recipe.name}"
        curve.draw(history, folder / CURVE, title=title, base_eval_loss=metrics["base_eval_loss"])
        picture = shutil.copy(folder / CURVE, model / CURVE).name
    except Exception as error:
        _without("loss curve", error)
    try:
        import card

        card.write(
            model,
            recipe=recipe,
            metrics=metrics,
            train_file=train_file,
            samples=samples,
            picture=picture,
        )
    except Exception as error:
        _without("model card", error)


def _without(what: str, error: Exception) -> None:
    # Not its text, which might quote the data.
    print(f"train.py: no {what} ({type(error).__name__})", file=sys.stderr)


def last_eval_loss(history: Sequence[dict[str, Any]]) -> float | None:
    """The evaluation loss after the last step, if it was measured there."""
    last = history[-1]["step"]
    return next((e["eval_loss"] for e in history if e["step"] == last and "eval_loss" in e), None)


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Write the metrics as JSON."""
    path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
