"""Write the result of train.py: complete, under its final names, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ownership
from console import print_line
from metrics import Metrics, package_versions

if TYPE_CHECKING:
    from general import AnswerPair
    from inputs import Recipe
    from samples import SampleAnswer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CURVE, SAMPLES, METRICS = "loss.png", "samples.jsonl", "metrics.json"
GENERAL = "general.jsonl"
# Files that an MLflow run displays. The last README.md that exists is the card of the run.
TRACKED_FILES = (METRICS, CURVE, "adapter/README.md", "model/README.md")
OWNER_FILE = ".phi3-partial"  # in a partial folder: locked while its process is alive
RESULT_NAMES = ("base", "model", "adapter", "mlflow", METRICS, CURVE, SAMPLES, GENERAL)
# Phi-3 ends a turn with <|end|>; a model's generation config may name only the end of the text.
END_MARKS = ("<|end|>", "<|endoftext|>")

# Names, types and defaults for MLflow's signature. MLflow silently drops any other parameter.
PARAMS = [
    ("max_new_tokens", "long", 128),
    ("temperature", "double", 0.7),
    ("top_p", "double", 1.0),
    ("do_sample", "boolean", False),
    ("return_full_text", "boolean", False),
]


@contextmanager
def partial_folder(output_dir: Path) -> Iterator[Path]:
    """Give a folder inside `output_dir` to build the result in; it is removed at the end.

    The partial folders of killed processes are removed as well, unless one contains an earlier result
    that the process was about to replace.
    """
    for owner in output_dir.glob(f".partial-*/{OWNER_FILE}"):
        _remove_if_stale(owner)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=output_dir))
    try:
        with (folder / OWNER_FILE).open("x") as owner_file:
            _lock(owner_file.fileno())
            owner_file.write("locked")  # without it, no other process removes the folder
            owner_file.flush()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_stale(owner: Path) -> None:
    """Remove a partial folder if the process that made it has ended."""
    earlier = owner.parent / "earlier"
    if owner.is_symlink() or (earlier.is_dir() and any(earlier.iterdir())):
        return
    with suppress(OSError), owner.open("r+") as owner_file:
        if _lock(owner_file.fileno(), wait=False) and owner_file.read():
            shutil.rmtree(owner.parent, ignore_errors=True)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock a file until it is closed or the process ends, and return whether it is locked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows, a file system without locks, or locked already
        return False
    return True


def publish(folder: Path, output_dir: Path) -> None:
    """Replace an earlier result with the finished one, by renaming.

    Args:
        folder: partial folder with the finished result.
        output_dir: output folder.
    """
    ownership.begin_writing(output_dir, RESULT_NAMES)
    earlier = folder / "earlier"
    earlier.mkdir()
    for name in RESULT_NAMES:
        if (output_dir / name).exists():
            (output_dir / name).rename(earlier / name)
        if (folder / name).exists():
            (folder / name).rename(output_dir / name)
    ownership.finish_writing(output_dir, RESULT_NAMES)


def save_huggingface(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Save model, tokenizer, chat template and generation config as a Hugging Face folder."""
    config = model.generation_config
    config.eos_token_id = find_end_tokens(tokenizer, config.eos_token_id)
    config.pad_token_id = tokenizer.pad_token_id
    # Otherwise transformers derives a generation config without <|end|> from the model's config.
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

    # MLflow asks the hub for the folder's model card, which does not exist; offline, that takes long.
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    # MLflow stores this as the model's source, and a path is useless on other machines.
    model.name_or_path = Path(model.name_or_path).name
    # Inferring the signature needs scipy; without it, MLflow infers a schema that accepts anything.
    text = Schema([ColSpec(DataType.string)])
    params = ParamSchema([ParamSpec(name, DataType[kind], value) for name, kind, value in PARAMS])
    signature = ModelSignature(inputs=text, outputs=text, params=params)
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        path=str(folder),
        task="text-generation",
        signature=signature,
        prompt_template=prompt_template(tokenizer),
        pip_requirements=_requirements(),
    )


def prompt_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the chat template's text around one question, with `{prompt}` in its place.

    MLflow's flavour applies no chat template. Without this text, the model would continue the question.
    """
    question = "QUESTION"
    turns = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, _, after = str(text).rpartition(question)
    before, after = (part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    return f"{before}{{prompt}}{after}"


def _requirements() -> list[str]:
    # MLflow's version is pinned: older ones cannot load a model of this version of transformers.
    packages = {"mlflow": "mlflow-skinny", "torch": "torch", "transformers": "transformers"}
    packages["accelerate"] = "accelerate"
    versions = package_versions()
    pins = [f"{name}=={versions[package].partition('+')[0]}" for name, package in packages.items()]
    return [*pins, "azureml-ai-monitoring", "azureml-inference-server-http>=1.5.1"]


def write_curve_and_card(
    folder: Path,
    *,
    recipe: Recipe,
    metrics: Metrics,
    train_file: Path,
    history: Sequence[dict[str, Any]],
    samples: Sequence[SampleAnswer],
    general: Sequence[AnswerPair] = (),
) -> None:
    """Draw the loss curve and write the model card, which includes it.

    If one of them fails, a line on standard error says so and the run continues: the model is worth
    more than both.

    Args:
        folder: partial folder with the finished model.
        recipe: recipe of the run.
        metrics: metrics of the run.
        train_file: training file, whose manifest.json the card includes.
        history: the trainer's log.
        samples: sample answers of all epochs.
        general: answers to the general chats.
    """
    folders = [path for path in (folder / "model", folder / "adapter") if path.is_dir()]
    picture: str | None = None
    from early_stopping import describe_overfitting

    try:
        import curve

        title = f"{metrics.model}, recipe {recipe.name}"
        curve.draw(
            history,
            folder / CURVE,
            title=title,
            base_eval_loss=metrics.base_eval_loss,
            saved_step=metrics.saved_step,
        )
        for path in folders:
            picture = shutil.copy(folder / CURVE, path / CURVE).name
    except Exception as error:
        _report_missing("loss curve", error)
    try:
        import card

        for path in folders:
            card.write(
                path,
                recipe=recipe,
                metrics=metrics,
                train_file=train_file,
                samples=samples,
                general=general,
                picture=picture,
                overfitting=describe_overfitting(history, metrics.saved_step),
            )
    except Exception as error:
        _report_missing("model card", error)


def _report_missing(name: str, error: Exception) -> None:
    # The error's text might quote the data, so only its type is printed.
    print_line(f"the {name} was not written ({type(error).__name__})")
